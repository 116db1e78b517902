"""From features to predictions: heads that are fitted to a task's support features.

Every head has ``fit(features [T, S, D], labels [T, S], ways) -> state`` (a dict of tensors with a leading
task axis) and ``predict(state, features [T, Q, D]) -> [T, Q, ways]``; ``inner_loss`` is what the inner loop
descends. Heads hold what the outer loop learns about them (scales, shared weights), never a task's own state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError

State = dict[str, Tensor]

HEADS = ("prototype", "cosine", "linear", "ridge", "regression")


def prototypes(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Class means (Snell et al., NeurIPS 2017, arXiv:1703.05175).

    Args:
        features: ``[T, S, D]``.
        labels: ``[T, S]`` int64 in [0, ways); classes may have different counts, each at least one.

    Returns:
        ``[T, ways, D]``.
    """
    member = F.one_hot(labels, ways).to(features.dtype)  # [T, S, ways]
    return (member.transpose(1, 2) @ features) / member.sum(1).unsqueeze(-1).clamp(min=1)


def task_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of each task: ``[T, Q, ways]``, ``[T, Q]`` -> ``[T]``."""
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)


class Head(nn.Module):
    """What heads share: the losses. ``loss`` and ``inner_loss`` return one value per task, ``[T]``."""

    held_out_views = True  # the inner loss scores augmented copies of the support
    uses_support = True  # ``fit`` reads the support features

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        raise NotImplementedError

    def predict(self, state: State, features: Tensor) -> Tensor:
        raise NotImplementedError

    def loss(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return task_cross_entropy(predictions, labels)

    def inner_loss(self, features: Tensor, labels: Tensor, ways: int, views: Tensor | None) -> Tensor:
        """The support set's own loss.

        Args:
            features: ``[T, S, D]`` of the support images.
            labels: ``[T, S]``.
            views: ``[T, V·S, D]`` of augmented copies (all of copy 1, then all of copy 2 ...), or None.
        """
        state = self.fit(features, labels, ways)
        if views is None:
            return self.loss(self.predict(state, features), labels)
        return self.loss(self.predict(state, views), labels.repeat(1, views.shape[1] // labels.shape[1]))


class _PrototypeHead(Head):
    """Class weights from prototypes. In the inner loss an image (or an augmented copy of it) is scored
    against its class's prototype *without* that image, wherever the class has another one: against itself it
    says next to nothing."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        if not scale > 0:
            raise MetafilmError(f"head scale {scale} must be positive")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        return {"prototypes": prototypes(features, labels, ways)}

    def score(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """``[T, Q, D]``, ``[T, ways, D]`` -> logits ``[T, Q, ways]``."""
        raise NotImplementedError

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

    def score(self, features: Tensor, prototypes: Tensor) -> Tensor:
        products = features @ prototypes.transpose(1, 2)
        return self.log_scale.exp() * (2 * products - prototypes.square().sum(-1).unsqueeze(1))


class CosineHead(_PrototypeHead):
    """Cosine similarity to the prototypes, times a learned scale (Gidaris & Komodakis, CVPR 2018)."""

    def score(self, features: Tensor, prototypes: Tensor) -> Tensor:
        return self.log_scale.exp() * (
            F.normalize(features, dim=-1) @ F.normalize(prototypes, dim=-1).transpose(1, 2)
        )


class LinearHead(Head):
    """One linear layer learned by the outer loop, shared by all tasks, for a fixed number of ways (MAML,
    CAVIA).
    """

    held_out_views = False
    uses_support = False

    def __init__(self, in_features: int, ways: int) -> None:
        super().__init__()
        self.ways = ways
        self.linear = nn.Linear(in_features, ways)

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        if ways != self.ways:
            raise MetafilmError(
                f"a linear head is built for {self.ways} ways and can't tell {ways} apart; use head "
                f"prototype, cosine or ridge"
            )
        tasks = features.shape[0]
        return {
            "weight": self.linear.weight.expand(tasks, -1, -1),
            "bias": self.linear.bias.expand(tasks, -1),
        }

    def predict(self, state: State, features: Tensor) -> Tensor:
        return features @ state["weight"].transpose(1, 2) + state["bias"].unsqueeze(1)


class RidgeHead(Head):
    """Ridge regression on one-hot labels in closed form (R2-D2: Bertinetto et al., ICLR 2019,
    arXiv:1805.08136) by the Woodbury identity: an S×S system, however wide the features. λ, scale and offset
    are learned."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise MetafilmError(f"head scale {scale} must be positive")
        self.log_lambda = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.offset = nn.Parameter(torch.zeros(()))

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        targets = F.one_hot(labels, ways).to(features.dtype)
        # features scaled to unit mean square norm, so that λ means the same at any width
        size = features.square().sum(-1).mean(1, keepdim=True).clamp(min=1e-12).rsqrt().unsqueeze(-1)
        x = features * size
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        gram = x @ x.transpose(1, 2) + self.log_lambda.exp() * eye
        weight = x.transpose(1, 2) @ torch.linalg.solve(gram, targets)  # [T, D, ways]
        return {
            "weight": self.log_scale.exp() * (weight * size).transpose(1, 2),
            "bias": self.offset.expand(x.shape[0], ways),
        }

    def predict(self, state: State, features: Tensor) -> Tensor:
        return features @ state["weight"].transpose(1, 2) + state["bias"].unsqueeze(1)


class RegressionHead(Head):
    """One linear layer to real outputs, shared by all tasks; mean squared error."""

    held_out_views = False
    uses_support = False

    def __init__(self, in_features: int, out_features: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        return {
            "weight": self.linear.weight.expand(features.shape[0], -1, -1),
            "bias": self.linear.bias.expand(features.shape[0], -1),
        }

    def predict(self, state: State, features: Tensor) -> Tensor:
        """``[T, Q, D]`` -> ``[T, Q, out_features]``."""
        return features @ state["weight"].transpose(1, 2) + state["bias"].unsqueeze(1)

    def loss(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return (predictions - labels).square().mean((1, 2))


def build(name: str, in_features: int, ways: int, scale: float) -> Head:
    """The head of that name.

    Raises:
        MetafilmError: unknown name.
    """
    if name == "prototype":
        return PrototypeHead(scale)
    if name == "cosine":
        return CosineHead(scale)
    if name == "linear":
        return LinearHead(in_features, ways)
    if name == "ridge":
        return RidgeHead(scale)
    if name == "regression":
        return RegressionHead(in_features)
    raise MetafilmError(f"unknown head {name!r}; expected one of {', '.join(HEADS)}")
