"""Sinusoids: few-shot regression in its smallest form (Finn et al., "Model-Agnostic Meta-Learning", 2017,
section 5.1)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.counter import Stream, uniforms
from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.sampling.drawing import episode_numbers
from episodes.sampling.feasibility import as_count
from episodes.sampling.prefetch import BaseSampler


class SinusoidSampler(BaseSampler):
    """Tasks y = amplitude * sin(x - phase), one amplitude and phase a task.

    The minus sign is that of the code that the published figures come from (cbfinn/maml and
    lmzintgraf/cavia; over a phase range of 0 to pi it isn't the same set of functions as with a plus).
    shots, queries: support and query points a task. amplitude, phase, x_range: (low, high) of uniform
    draws. noise: standard deviation of normal noise on the support's targets; the query's are exact, so
    that the error measures the function.

    Episode i is a pure function of (seed, i) and these settings, whatever batch it comes in. Episodes hold
    support_images = x [T, shots, 1], support_labels = y [T, shots, 1], the queries alike, all float32, and
    ways = 0.

    Raises EpisodesError for fewer than one shot, negative queries or noise, and ranges that aren't low <=
    high.
    """

    def __init__(
        self,
        shots: int = 10,
        queries: int = 100,
        seed: int = 0,
        amplitude: tuple[float, float] = (0.1, 5.0),
        phase: tuple[float, float] = (0.0, math.pi),
        x_range: tuple[float, float] = (-5.0, 5.0),
        noise: float = 0.0,
    ) -> None:
        if not (math.isfinite(noise) and noise >= 0):
            raise EpisodesError(f"noise={noise}: a standard deviation is a number from 0")
        for name, bounds in (("amplitude", amplitude), ("phase", phase), ("x_range", x_range)):
            if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
                raise EpisodesError(f"{name}={bounds}: give (low, high) with low <= high")
        self.shots, self.queries = as_count("shots", shots, 1), as_count("queries", queries)
        self.seed = int(seed)
        self.amplitude, self.phase, self.x_range, self.noise = amplitude, phase, x_range, noise

    def __repr__(self) -> str:
        return f"SinusoidSampler(shots={self.shots}, queries={self.queries}, seed={self.seed})"

    def shapes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """(ways, shots) of each episode: always (0, shots)."""
        return [(0, self.shots)] * len(indices)

    def functions(self, indices: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Amplitude and phase of each episode's function, each float64 [T]."""
        draws = uniforms(self.seed, episode_numbers(indices), Stream.FUNCTION, (2,))
        return between(draws[:, 0], self.amplitude), between(draws[:, 1], self.phase)

    def batch(self, indices: Sequence[int]) -> Episode:
        """The episodes of these numbers as one Episode of T = len(indices) tasks."""
        amplitude, phase = self.functions(indices)
        numbers = episode_numbers(indices)
        tensors = {}
        for part, points, stream in (
            ("support", self.shots, Stream.SUPPORT_POINTS),
            ("query", self.queries, Stream.QUERY_POINTS),
        ):
            x = between(uniforms(self.seed, numbers, stream, (points,)), self.x_range)  # [T, points]
            y = amplitude[:, None] * np.sin(x - phase[:, None])
            if part == "support" and self.noise:
                y = y + self.noise * normal(uniforms(self.seed, numbers, Stream.NOISE, (points, 2)))
            tensors[f"{part}_images"], tensors[f"{part}_labels"] = column(x), column(y)
        return Episode(**tensors, ways=0, index=torch.from_numpy(numbers.copy()))


def between(draws: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.float64]:
    return bounds[0] + draws * (bounds[1] - bounds[0])


def normal(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal numbers [...] from pairs of uniforms [..., 2] (Box and Muller, 1958)."""
    # 1 - u is in (0, 1], whose logarithm is finite.
    return np.sqrt(-2 * np.log1p(-draws[..., 0])) * np.cos(2 * np.pi * draws[..., 1])


def column(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values).float().unsqueeze(-1)
