"""Mixtures of kinds of functions: few-shot regression where a task must first be recognised (MMAML: Vuorio et
al., NeurIPS 2019, arXiv:1910.13616; the ranges are those of vuoristo/MMAML-Regression, whose figures they
make)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from episodes.counter import Stream, uniforms
from episodes.datasets.sinusoids import between, column, normal
from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.sampling.drawing import episode_numbers
from episodes.sampling.feasibility import as_count
from episodes.sampling.prefetch import BaseSampler

Numbers = NDArray[np.float64]
KINDS = ("sine", "line", "quadratic", "tanh", "absolute")
X_RANGE = (-5.0, 5.0)
NOISE = 0.3


def value(kind: int, parameters: Numbers, x: Numbers) -> Numbers:
    """The functions of one of KINDS.

    parameters: [T, 4] uniform in [0, 1). x: [T, points]. Returns y [T, points].

    sine: a sin(x - p), a 0.1 to 5, p 0 to pi. line: s x + b. quadratic: s (x - c)^2 + b, s 0.02 to 0.15, of
    either sign. tanh: s tanh(x - c) + b. absolute: s |x - c| + b. Where not said: s, c and b from -3 to 3.
    """
    first, second, third, fourth = (parameters[:, i, None] for i in range(4))
    if kind == 0:
        return between(first, (0.1, 5.0)) * np.sin(x - between(second, (0.0, math.pi)))
    slope, centre, bias = (between(draws, (-3.0, 3.0)) for draws in (first, second, third))
    if kind == 1:
        return slope * x + bias
    if kind == 2:
        return np.where(fourth < 0.5, -1.0, 1.0) * between(first, (0.02, 0.15)) * (x - centre) ** 2 + bias
    return slope * (np.tanh(x - centre) if kind == 3 else np.abs(x - centre)) + bias


class FunctionsSampler(BaseSampler):
    """Tasks of several kinds of functions: episode i is of kind i modulo their number, so that a batch has as
    many of each.

    kinds: the first so many of KINDS (2, 3 and 5 are MMAML's). shots, queries: support and query points a
    task, x uniform in [-5, 5]. noise: standard deviation of normal noise on the targets of both, as there:
    the noise of a query, 0.09 in the mean square, is part of the published errors, and no learner gets below
    it.

    Episode i is a pure function of (seed, i) and these settings. Episodes are those of
    `episodes.datasets.sinusoids.SinusoidSampler`, with the number of their kind in `pool_ids`.

    Raises EpisodesError for fewer than one kind or shot, more kinds than there are, negative queries or
    noise.
    """

    x_range = X_RANGE

    def __init__(
        self, kinds: int = 5, shots: int = 5, queries: int = 5, seed: int = 0, noise: float = NOISE
    ) -> None:
        if not 1 <= kinds <= len(KINDS):
            raise EpisodesError(f"kinds={kinds}: choose 1 to {len(KINDS)} of {', '.join(KINDS)}")
        if not (math.isfinite(noise) and noise >= 0):
            raise EpisodesError(f"noise={noise}: a standard deviation is a number from 0")
        self.kinds, self.seed = int(kinds), int(seed)
        self.shots, self.queries = as_count("shots", shots, 1), as_count("queries", queries)
        self.noise = noise
        self.domains = KINDS[:kinds]

    def __repr__(self) -> str:
        return f"FunctionsSampler({self.kinds}, {self.shots}, {self.queries}, seed={self.seed})"

    def shapes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """(ways, shots) of each episode: always (0, shots)."""
        return [(0, self.shots)] * len(indices)

    def batch(self, indices: Sequence[int]) -> Episode:
        """The episodes of these numbers as one Episode of T = len(indices) tasks."""
        numbers = episode_numbers(indices)
        kinds = numbers % self.kinds
        parameters = uniforms(self.seed, numbers, Stream.FUNCTION, (4,))
        noise = self._noise(numbers)
        tensors: dict[str, Tensor] = {}
        for part, first, points, stream in (
            ("support", 0, self.shots, Stream.SUPPORT_POINTS),
            ("query", self.shots, self.queries, Stream.QUERY_POINTS),
        ):
            x = between(uniforms(self.seed, numbers, stream, (points,)), X_RANGE)  # [T, points]
            y = np.zeros_like(x)
            for kind in range(self.kinds):
                mine = kinds == kind
                y[mine] = value(kind, parameters[mine], x[mine])
            y = y + noise[:, first : first + points]
            tensors[f"{part}_images"], tensors[f"{part}_labels"] = column(x), column(y)
        return Episode(**tensors, ways=0, index=from_numpy(numbers.copy()), pool_ids=from_numpy(kinds))

    def _noise(self, numbers: NDArray[np.int64]) -> Numbers:
        """Of each point [T, shots + queries], the support's first."""
        points = self.shots + self.queries
        if not self.noise:
            return np.zeros((len(numbers), points))
        return self.noise * normal(uniforms(self.seed, numbers, Stream.NOISE, (points, 2)))
