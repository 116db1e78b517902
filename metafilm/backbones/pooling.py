"""From the last maps of a network to its features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError
from metafilm.film import modulate

POOLINGS = ("flatten", "flatten2x2", "mean", "max")


class Features(nn.Identity):
    """The features as they leave a network: a place for a FiLM site with nothing after it but the head. None
    of the usual sites. It has no weights until deviations are folded into it."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name in ("weight", "bias"):  # which a pickle of an older version has not
            self._parameters.setdefault(name, None)

    def forward(self, input: Tensor) -> Tensor:
        if self.weight is None or self.bias is None:
            return input
        return modulate(input, self.weight, self.bias)


def require(pooling: str) -> None:
    """Raise MetafilmError for a name that is none of :data:`POOLINGS`."""
    if pooling not in POOLINGS:
        raise MetafilmError(f"unknown pooling {pooling!r}; expected one of {', '.join(POOLINGS)}")


def cells(height: int, breadth: int, pooling: str) -> int:
    """How many cells of a map of that size features have; a mean or maximum is over them.

    Raises:
        MetafilmError: maps too small for it.
    """
    if pooling != "flatten2x2":
        return height * breadth
    if min(height, breadth) < 2:
        raise MetafilmError(
            f"pooling flatten2x2 needs last maps of at least 2x2 cells, here they have {height}x{breadth}; "
            "use larger images, or pooling flatten"
        )
    return (height // 2) * (breadth // 2)


def flattens(pooling: str) -> bool:
    """Whether features are the cells of maps, so that their number follows the images' size."""
    return pooling.startswith("flatten")


def pooled(maps: Tensor, pooling: str) -> Tensor:
    """Features of maps ``[B, C, H, W]``.

    Args:
        pooling: ``flatten``: ``[B, C·H·W]``, all cells of the first map, then of the second ...;
            ``flatten2x2``: likewise, of the means over 2×2 cells (an odd last row or column is left out);
            ``mean`` or ``max`` over the cells: ``[B, C]``, whatever the maps' size.
    """
    if flattens(pooling):
        return (F.avg_pool2d(maps, 2) if pooling == "flatten2x2" else maps).flatten(1)
    return maps.mean((2, 3)) if pooling == "mean" else maps.amax((2, 3))
