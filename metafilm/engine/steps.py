"""How gradients become steps of the deviations: the inner loop's optimisers, differentiable."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

OPTIMISERS = ("sgd", "adam")
"""The inner optimisers by name: command line, configuration and docs read these."""


class Adam:
    """From gradients to steps of size about one, differentiable; each task and feature by itself."""

    DECAYS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self) -> None:
        self.step = 0
        self.means: Sequence[Tensor | float] = ()
        self.squares: Sequence[Tensor | float] = ()

    def __call__(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        first, second = self.DECAYS
        self.step += 1
        self.means = [
            first * mean + (1 - first) * gradient
            for mean, gradient in zip(self.means or [0.0] * len(gradients), gradients, strict=True)
        ]
        self.squares = [
            second * square + (1 - second) * gradient.square()
            for square, gradient in zip(self.squares or [0.0] * len(gradients), gradients, strict=True)
        ]
        return [
            # ε under the root: outside of it, as published, the root's own derivative at 0 is infinite
            (mean / (1 - first**self.step)) / (square / (1 - second**self.step) + self.EPSILON**2).sqrt()
            for mean, square in zip(self.means, self.squares, strict=True)
        ]
