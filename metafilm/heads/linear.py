"""One linear layer that the outer loop learns and all tasks share, for classes or for real values."""

from __future__ import annotations

from torch import Tensor, nn

from metafilm.errors import MetafilmError
from metafilm.heads.base import Head, State


class LinearHead(Head):
    """One linear layer learned by the outer loop, shared by all tasks, for a fixed number of ways (MAML,
    CAVIA).
    """

    held_out_views = False
    uses_support = False

    def __init__(self, in_features: int, ways: int) -> None:
        super().__init__()
        self.arguments = {"in_features": in_features, "ways": ways}
        self.ways = ways
        self.linear = nn.Linear(in_features, ways)

    @classmethod
    def build(cls, in_features: int, ways: int, scale: float) -> Head:
        return cls(in_features, ways)

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


class RegressionHead(Head):
    """One linear layer to real outputs, shared by all tasks; mean squared error."""

    held_out_views = False
    uses_support = False
    metric = "mse"
    regression = True

    def __init__(self, in_features: int, out_features: int = 1) -> None:
        super().__init__()
        self.arguments = {"in_features": in_features, "out_features": out_features}
        self.linear = nn.Linear(in_features, out_features)

    @classmethod
    def build(cls, in_features: int, ways: int, scale: float) -> Head:
        return cls(in_features)

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        self.require_targets(labels)
        return {
            "weight": self.linear.weight.expand(features.shape[0], -1, -1),
            "bias": self.linear.bias.expand(features.shape[0], -1),
        }

    def state_shapes(self, ways: int, features: int | None) -> dict[str, tuple[int | None, ...]]:
        return super().state_shapes(self.linear.out_features, features)

    def predict(self, state: State, features: Tensor) -> Tensor:
        """``[T, Q, D]`` -> ``[T, Q, out_features]``."""
        return features @ state["weight"].transpose(1, 2) + state["bias"].unsqueeze(1)

    def loss(self, predictions: Tensor, labels: Tensor) -> Tensor:
        self.require_targets(labels)
        return (predictions - labels).square().mean((1, 2))

    def require_targets(self, labels: Tensor) -> None:
        width = self.linear.out_features
        if labels.dim() != 3 or labels.shape[-1] != width:
            raise MetafilmError(
                f"targets have shape {tuple(labels.shape)}, expected (tasks, points, {width}); give {width} "
                f"value{'' if width == 1 else 's'} for each input, or a head of as many outputs"
            )

    def measure(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return self.loss(predictions, labels).double()
