"""The two directions in which tasks differ most."""

from __future__ import annotations

import torch
from torch import Tensor


def principal(values: Tensor) -> tuple[Tensor, list[float]]:
    """The first two principal components.

    Args:
        values: ``[T, P]``.

    Returns:
        Coordinates ``[T, 2]``, the largest of each direction's weights positive so that they are the same
        every time, and the part of the variance on each.
    """
    centred = values.double() - values.double().mean(0)
    left, sizes, right = torch.linalg.svd(centred, full_matrices=False)
    places = torch.zeros(len(values), 2, dtype=torch.float64)
    count = min(2, len(sizes))
    for k in range(count):
        turn = torch.sign(right[k][right[k].abs().argmax()]) or torch.tensor(1.0)
        places[:, k] = left[:, k] * sizes[k] * turn
    total = float(sizes.square().sum())
    parts = [float(size) ** 2 / total if total else 0.0 for size in sizes[:count]]
    return places, parts + [0.0] * (2 - count)
