"""Stochastic FiLM: while training, each task meets a network whose sites have random gains and shifts.

After the feature-wise transformation layers of Tseng et al. ("Cross-domain few-shot classification via
learned feature-wise transformation", ICLR 2020, arXiv:2001.08735): γ = 1 + 0.3·s·ε and β = 0.5·s·ε. What is
learned has to hold for more networks, and so for more domains, than the one that there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from episodes import Episode, counter
from metafilm import film
from metafilm.film import FilmDict
from metafilm.learner.learner import MetaFiLM

GAIN_SCALE, SHIFT_SCALE = 0.3, 0.5
STREAM = 1001  # of random numbers; episodes have those up to 1000 for themselves


class FilmNoise:
    """Random gains and shifts at every FiLM site: one draw a task and feature, a pure function of the seed
    and the episode's number, and so of neither chunks nor resuming.

    Args:
        strength: s; 0 is no noise.
        seed: of the run.
    """

    def __init__(self, strength: float, seed: int) -> None:
        self.strength, self.seed = strength, seed

    def draw(self, sites: dict[str, int], index: Tensor) -> FilmDict:
        """ε scaled: γ - 1 and β of each site, ``[T, C]`` float64 each, for episodes ``index`` ``[T]``."""
        sizes = [size for size in sites.values() for _ in range(2)]
        names = [name for site in sites for name in film.names(site)]
        uniform = torch.from_numpy(
            counter.uniforms(self.seed, index.cpu().numpy(), STREAM, (sum(sizes),))
        ).clamp(min=2.0**-54)  # 0 would be minus infinity
        normal = torch.special.ndtri(uniform).split(sizes, -1)
        scales = [self.strength * scale for _ in sites for scale in (GAIN_SCALE, SHIFT_SCALE)]
        return {name: scale * value for name, scale, value in zip(names, scales, normal, strict=True)}

    @contextmanager
    def under(self, learner: MetaFiLM, episode: Episode) -> Iterator[None]:
        """The learner under the noise of these tasks, in every pass, for the time of the context."""
        drawn = self.draw(film.sites(learner.backbone), episode.index)
        learner.underlay = partial(underlaid, {name: value.to(learner.mean) for name, value in drawn.items()})
        try:
            yield
        finally:
            learner.underlay = None


def underlaid(noise: FilmDict, deviations: FilmDict) -> FilmDict:
    """The task's FiLM on what the noise has made of the maps: ``(1 + δγ) (γ x + β) + δβ``, as deviations."""
    found = dict(noise)
    for gain, bias in zip(list(noise)[::2], list(noise)[1::2], strict=True):
        if gain in deviations:
            factor = 1 + deviations[gain]
            found[gain] = factor * (1 + noise[gain]) - 1
            found[bias] = factor * noise[bias] + deviations[bias]
    return found
