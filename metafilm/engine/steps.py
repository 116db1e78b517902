"""How gradients become steps of the deviations: the inner loop's optimisers, differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

OPTIMISERS = ("sgd", "adam")
"""The inner optimisers by name: command line, configuration and docs read these."""


class Adam:
    """From gradients to steps of size about one, differentiable; each task and feature by itself."""

    DECAYS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self) -> None:
        self.step = 0
        self.mean: Tensor | float = 0.0
        self.square: Tensor | float = 0.0

    def __call__(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        first, second = self.DECAYS
        self.step += 1
        # all in one vector: deviations are many and small, and an operation costs more than its arithmetic
        gradient = torch.cat([value.flatten() for value in gradients])
        self.mean = first * self.mean + (1 - first) * gradient
        self.square = second * self.square + (1 - second) * gradient.square()
        mean, square = self.mean / (1 - first**self.step), self.square / (1 - second**self.step)
        # ε under the root: outside of it, as published, the root's own derivative at 0 is infinite
        moves = mean / (square + self.EPSILON**2).sqrt()
        parts = moves.split([value.numel() for value in gradients])
        return [part.view_as(value) for part, value in zip(parts, gradients, strict=True)]
