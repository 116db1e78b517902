"""Two heads that judge together."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError
from metafilm.heads.base import Head, State
from metafilm.heads.transform import FeatureTransform

NAMES = ("first", "second")


class BlendHead(Head):
    """Two heads' log-probabilities, added with fixed weights: (1 − w) log p₁ + w log p₂, a weighted geometric
    mean of their probabilities, up to what a soft-max takes off.

    Features are what the more detailed of the two takes: where one compares the cells of maps and the other
    whole images, cells, and the other sees their mean. A transform is for the heads of whole images alone.

    Args:
        first, second: the heads, each fitted to the same support.
        weight: w, of the second, in [0, 1].

    Raises:
        MetafilmError: another weight, or a head that is not fitted to the support.
    """

    def __init__(self, first: Head, second: Head, weight: float) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise MetafilmError(f"the second head's weight must be between 0 and 1, is {weight}")
        for head in (first, second):
            if not head.uses_support:
                raise MetafilmError(
                    f"a {type(head).__name__} is not fitted to the support, and can't be blended"
                )
        self.first, self.second, self.weight = first, second, weight
        self.arguments = {"weight": weight}

    @property
    def _heads(self) -> tuple[tuple[str, Head, float], ...]:
        """Each head with the beginning of its names in the state and its weight."""
        heads = (self.first, self.second)
        return tuple(zip(NAMES, heads, (1 - self.weight, self.weight), strict=True))

    @property
    def _local(self) -> Head | None:
        """The head that says how cells make a whole image; None where all take whole images."""
        return next((head for _, head, _ in self._heads if head.local), None)

    def seen(self, features: Tensor) -> Tensor:
        """As they are: each head sees them its own way."""
        return features

    def _of(self, head: Head, features: Tensor) -> Tensor:
        """Features ``[..., D]`` as this one of the heads takes them."""
        return features if head.local else super().seen(self.whole(features))

    def whole(self, features: Tensor) -> Tensor:
        return features if self._local is None else self._local.whole(features)

    def whole_size(self, features: int) -> int:
        return features if self._local is None else self._local.whole_size(features)

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        return {
            f"{name}_{key}": value
            for name, head, _ in self._heads
            for key, value in head.fit(self._of(head, features), labels, ways).items()
        }

    def predict(self, state: State, features: Tensor) -> Tensor:
        parts = [
            weight * head.predict(own(state, name), self._of(head, features)).log_softmax(-1)
            for name, head, weight in self._heads
        ]
        return parts[0] + parts[1]

    def inner_loss(self, features: Tensor, labels: Tensor, ways: int, views: Tensor | None) -> Tensor:
        """The heads' own inner losses with their weights, which bounds that of the blend from above: the
        soft-max of a geometric mean divides by at most 1."""
        losses = [
            weight * head.inner_loss(self._of(head, features), labels, ways, self._views(head, views))
            for _, head, weight in self._heads
        ]
        return losses[0] + losses[1]

    def _views(self, head: Head, views: Tensor | None) -> Tensor | None:
        return None if views is None else self._of(head, views)

    def state_shapes(self, ways: int, features: int | None) -> dict[str, tuple[int | None, ...]]:
        found = {}
        for name, head, _ in self._heads:
            size = features if features is None or head.local else self.whole_size(features)
            found |= {f"{name}_{key}": shape for key, shape in head.state_shapes(ways, size).items()}
        return found

    def plain(self, state: State) -> nn.Module:
        layers = [head.plain(own(state, name)) for name, head, _ in self._heads]
        cells = [head.local for _, head, _ in self._heads]
        channels = getattr(self._local, "channels", None)
        return BlendClassifier(layers, cells, self.weight, channels, copy.deepcopy(self.transform))

    def plain_with_transform(self, state: State) -> nn.Module:
        return self.plain(state)


def own(state: State, name: str) -> State:
    """The part of a blend's state that is of the head of that name."""
    return {key.removeprefix(f"{name}_"): value for key, value in state.items() if key.startswith(f"{name}_")}


class BlendClassifier(nn.Module):
    """One task's two heads as ordinary layers, features ``[B, D]`` -> logits ``[B, ways]``.

    Args:
        layers: the heads'; ``cells``: which of them take cells.
        weight: of the second.
        channels: of a cell, where there are cells.
        transform: of features of whole images.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        cells: list[bool],
        weight: float,
        channels: int | None,
        transform: FeatureTransform | None,
    ) -> None:
        super().__init__()
        self.layers, self.transform = nn.ModuleList(layers), transform
        self.cells, self.weight, self.channels = cells, weight, channels

    def forward(self, x: Tensor) -> Tensor:
        whole = x if self.channels is None else x.unflatten(-1, (self.channels, -1)).mean(-1)
        if self.transform is not None:
            whole = self.transform(whole)
        first, second = (
            F.log_softmax(layer(x if takes_cells else whole), -1)
            for layer, takes_cells in zip(self.layers, self.cells, strict=True)
        )
        return torch.lerp(first, second, self.weight)
