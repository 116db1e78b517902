"""Heads that score a query against class prototypes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError
from metafilm.heads.base import Head, State, plain_linear, prototypes, task_cross_entropy


class _PrototypeHead(Head):
    """Class weights from prototypes. In the inner loss an image (or an augmented copy of it) is scored
    against its class's prototype *without* that image, wherever the class has another one: against itself it
    says next to nothing."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        if not scale > 0:
            raise MetafilmError(f"head scale {scale} must be positive")
        self.arguments = {"scale": scale}
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @classmethod
    def build(cls, in_features: int, ways: int, scale: float) -> Head:
        return cls(scale)

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        return {"prototypes": prototypes(features, labels, ways)}

    def score(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """``[T, Q, D]``, ``[T, ways, D]`` -> logits ``[T, Q, ways]``."""
        raise NotImplementedError

    def state_shapes(self, ways: int, features: int | None) -> dict[str, tuple[int | None, ...]]:
        return {"prototypes": (ways, features)}

    def predict(self, state: State, features: Tensor) -> Tensor:
        return self.score(features, state["prototypes"])

    def inner_loss(self, features: Tensor, labels: Tensor, ways: int, views: Tensor | None) -> Tensor:
        scored = features if views is None else views
        copies = scored.shape[1] // features.shape[1]
        member = F.one_hot(labels, ways).to(features.dtype)  # [T, S, ways]
        counts = member.sum(1)  # [T, ways]
        means = (member.transpose(1, 2) @ features) / counts.unsqueeze(-1).clamp(min=1)
        own_count = (member @ counts.unsqueeze(-1)).clamp(min=1)  # [T, S, 1]
        own_mean = member @ means  # [T, S, D]
        others = (own_mean * own_count - features) / (own_count - 1).clamp(min=1)
        others = torch.where(own_count > 1, others, own_mean).repeat(1, copies, 1)
        logits = self.score(scored, means)
        own = self.score(
            scored.flatten(0, 1).unsqueeze(1), others.flatten(0, 1).unsqueeze(1)
        )  # [T·V·S, 1, 1]
        own = own.view(*scored.shape[:2], 1)
        logits = torch.where(member.repeat(1, copies, 1).bool(), own, logits)
        return task_cross_entropy(logits, labels.repeat(1, copies))


class PrototypeHead(_PrototypeHead):
    """Negative squared Euclidean distance to the prototypes, times a learned scale (Snell et al. 2017; the
    scale after Oreshkin et al. 2018). The query's own norm is left out: it is the same for every class."""

    def familiarity(self, state: State, features: Tensor, counts: Tensor) -> Tensor:
        """Minus the squared distance to the nearest prototype, over 1 + 1/n.

        A query of that class and the mean of n such images differ by 1 + 1/n times the spread of the class:
        so that one threshold serves any number of shots.
        """
        points = state["prototypes"]
        distances = torch.cdist(features, points, compute_mode="donot_use_mm_for_euclid_dist").square()
        return -(distances / (1 + 1 / counts.unsqueeze(1))).amin(-1)

    @staticmethod
    def first_scale(in_features: int) -> float:
        # squared distances grow with the width of the features: the first logits are about as large at any
        # image size
        return 8 / in_features**0.5

    def plain(self, state: State) -> nn.Module:
        # the squared distance is linear in the query, up to a term that all classes share
        scale, points = self.log_scale.detach().exp(), state["prototypes"][0].detach()
        return plain_linear(2 * scale * points, -scale * points.square().sum(-1))

    def score(self, features: Tensor, prototypes: Tensor) -> Tensor:
        products = features @ prototypes.transpose(1, 2)
        return self.log_scale.exp() * (2 * products - prototypes.square().sum(-1).unsqueeze(1))


class CosineHead(_PrototypeHead):
    """Cosine similarity to the prototypes, times a learned scale (Gidaris & Komodakis, CVPR 2018)."""

    @staticmethod
    def first_scale(in_features: int) -> float:
        return 10.0

    def familiarity(self, state: State, features: Tensor, counts: Tensor) -> Tensor:
        """The largest cosine."""
        return (self.predict(state, features) / self.log_scale.exp()).amax(-1)

    def plain(self, state: State) -> nn.Module:
        return CosineClassifier(state["prototypes"][0].detach(), self.log_scale.detach().exp())

    def score(self, features: Tensor, prototypes: Tensor) -> Tensor:
        return self.log_scale.exp() * (
            F.normalize(features, dim=-1) @ F.normalize(prototypes, dim=-1).transpose(1, 2)
        )


class CosineClassifier(nn.Module):
    """Scaled cosine similarity to fixed class vectors, ``[B, D]`` -> ``[B, ways]``."""

    def __init__(self, prototypes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(scale * F.normalize(prototypes, dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=-1), self.weight)
