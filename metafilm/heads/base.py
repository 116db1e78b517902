"""What every head is, and what several share.

Every head has ``fit(features [T, S, D], labels [T, S], ways) -> state`` (a dict of tensors with a leading
task axis) and ``predict(state, features [T, Q, D]) -> [T, Q, ways]``; ``inner_loss`` is what the inner loop
descends. Heads hold what the outer loop learns about them (scales, shared weights), never a task's own state.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.heads.transform import FeatureTransform

State = dict[str, Tensor]
SINGULAR: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]
"""What a head raises whose equations have no solution."""


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


def solvable(features: Tensor) -> Tensor:
    """Features as equations are solved in them: at least in single precision, below which PyTorch solves
    none."""
    return features if features.dtype == torch.float64 else features.float()


def task_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of each task: ``[T, Q, ways]``, ``[T, Q]`` -> ``[T]``."""
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)


class Head(nn.Module):
    """What heads share: the losses. ``loss`` and ``inner_loss`` return one value per task, ``[T]``."""

    held_out_views = True  # the inner loss scores augmented copies of the support
    uses_support = True  # ``fit`` reads the support features
    metric = "accuracy"  # what ``measure`` gives: ``accuracy`` in percent, or ``mse``
    regression = False  # labels are real values
    local = False  # features are the cells of maps (metafilm.heads.local)
    arguments: dict[str, Any]  # what it was built with

    def __init__(self) -> None:
        super().__init__()
        self.transform: FeatureTransform | None = None  # of features in evaluation, see ``seen``

    @classmethod
    def build(cls, in_features: int, ways: int, scale: float) -> Head:
        """A head for features of this size; ``ways`` matters to heads of a fixed number of classes alone."""
        raise NotImplementedError

    @staticmethod
    def first_scale(in_features: int) -> float:
        """The factor on the logits to start from, where the settings leave it open."""
        return 1.0

    def seen(self, features: Tensor) -> Tensor:
        """Features ``[..., D]`` as ``fit``, ``predict``, ``inner_loss`` and ``familiarity`` take them:
        transformed, in evaluation, where the head has a transform."""
        return features if self.transform is None or self.training else self.transform(features)

    def plain_with_transform(self, state: State) -> nn.Module:
        """:meth:`plain`, and before it the transform where there is one."""
        layers = self.plain(state)
        return layers if self.transform is None else nn.Sequential(copy.deepcopy(self.transform), layers)

    def whole(self, features: Tensor) -> Tensor:
        """``[..., D]`` -> what a classifier of whole images takes, ``[..., whole_size(D)]``."""
        return features

    def whole_size(self, features: int) -> int:
        """Its size, of D features."""
        return features

    def require_targets(self, labels: Tensor) -> None:
        """Raises MetafilmError: real values ``[T, S, ...]`` of another shape than the head predicts."""

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        raise NotImplementedError

    def predict(self, state: State, features: Tensor) -> Tensor:
        raise NotImplementedError

    def familiarity(self, state: State, features: Tensor, counts: Tensor) -> Tensor:
        """How much each query is like what the support holds, higher for more; only comparisons count.

        Args:
            state: of :meth:`fit`.
            features: ``[T, Q, D]``.
            counts: ``[T, ways]``, support images of each class.

        Returns:
            ``[T, Q]``; here the largest probability (Hendrycks & Gimpel, ICLR 2017, arXiv:1610.02136).
        """
        return self.predict(state, features).softmax(-1).amax(-1)

    def state_shapes(self, ways: int, features: int | None) -> dict[str, tuple[int | None, ...]]:
        """What ``fit`` gives, without the axis of tasks; None where D is not known."""
        return {"weight": (ways, features), "bias": (ways,)}

    def plain(self, state: State) -> nn.Module:
        """One task's fitted head as ordinary layers, features ``[B, D]`` -> logits ``[B, ways]``."""
        return plain_linear(state["weight"][0], state["bias"][0])

    def loss(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return task_cross_entropy(predictions, labels)

    def measure(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """How well the predictions of each task do, ``[T]`` float64, in the head's ``metric``."""
        return (predictions.argmax(-1) == labels).double().mean(1) * 100

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


def plain_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer of these very values, ``[ways, D]`` and ``[ways]``."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    linear.weight, linear.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return linear
