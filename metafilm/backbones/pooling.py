"""From the last maps of a network to its features."""

from __future__ import annotations

from torch import Tensor

from metafilm.errors import MetafilmError

POOLINGS = ("flatten", "mean", "max")


def require(pooling: str) -> None:
    """Raise MetafilmError for a name that is none of :data:`POOLINGS`."""
    if pooling not in POOLINGS:
        raise MetafilmError(f"unknown pooling {pooling!r}; expected one of {', '.join(POOLINGS)}")


def pooled(maps: Tensor, pooling: str) -> Tensor:
    """Features of maps ``[B, C, H, W]``.

    Args:
        pooling: ``flatten``: ``[B, C·H·W]``, all cells of the first map, then of the second ...; ``mean`` or
            ``max`` over the cells: ``[B, C]``, whatever the maps' size.
    """
    if pooling == "flatten":
        return maps.flatten(1)
    return maps.mean((2, 3)) if pooling == "mean" else maps.amax((2, 3))
