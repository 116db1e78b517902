"""A learner's logits and familiarities over many tasks, and what they calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from episodes import Episode
from episodes.progress import Progress
from episodes.sampling.prefetch import Sampler
from metafilm.errors import MetafilmError, NotFinite
from metafilm.evaluation.calibration import fit_temperature
from metafilm.evaluation.scoring import TOGETHER
from metafilm.learner.copies import looks_at_queries
from metafilm.learner.finite import require_finite_weights
from metafilm.learner.learner import MetaFiLM
from metafilm.storage.calibration import Calibration, Level

QUANTILES = 401  # of familiarity: a false-alarm rate of 0.0025 is the least that is not between two of them


@dataclass
class Judgements:
    """What a learner said of the queries of each task, in the order of the episodes.

    Attributes:
        logits: ``[Q, ways]`` of queries of the task's classes; ``labels``: ``[Q]``.
        known, unknown: familiarity of queries of the task's classes, and of others.
    """

    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    known: list[Tensor] = field(default_factory=list)
    unknown: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def judge(
    learner: MetaFiLM,
    sampler: Sampler,
    episodes: int,
    *,
    ways: int | None = None,
    progress: bool | None = None,
) -> Judgements:
    """Adapt to tasks and judge their queries.

    Args:
        learner: put into evaluation mode for the time being.
        sampler: of tasks with as many shots and queries of each class.
        episodes: how many of them, from 0.
        ways: the task's classes are the first so many of the episode's, the queries of the others are
            unknown; None: all.

    Raises:
        MetafilmError: a learner of functions, or fewer classes than ``ways``.
        NotFinite: weights or predictions are NaN or infinite.
    """
    if learner.regression:
        raise MetafilmError("a learner of functions has no probabilities; give one of classes")
    require_finite_weights(learner)
    found = Judgements()
    numbers = [list(range(start, min(start + 16, episodes))) for start in range(0, episodes, 16)]
    with learner.evaluating(), Progress("judging", total=episodes, show=progress) as bar:
        for chunk in sampler.prefetch(numbers, TOGETHER):
            for episode in chunk:
                _judge(learner, episode.to(learner.mean.device), ways or episode.ways, found)
                bar.advance(episode.tasks)
    return found


def _judge(learner: MetaFiLM, episode: Episode, ways: int, found: Judgements) -> None:
    if ways > episode.ways:
        raise MetafilmError(f"{ways} known classes of {episode.ways}; draw episodes of more ways")
    episode = _restricted(episode, ways)
    films = learner.adaptation(episode, all_stages=False).films[-1]
    for task in range(episode.tasks):  # one task's queries fill the cache as it is
        one = episode.select(slice(task, task + 1))
        own = {name: value[task : task + 1] for name, value in films.items()}
        predictions, features = next(learner.predictions(one, [own]))
        if not predictions.isfinite().all():
            raise NotFinite(f"the predictions of episode {int(one.index[0])} are not finite")
        features = learner.head.seen(features)
        count = looks_at_queries(learner)
        support = features.shape[1] - count * predictions.shape[1]
        # after the support may come copies of it, in its order
        labels = one.support_labels.repeat(1, support // one.support_labels.shape[1])
        state = learner.head.fit(features[:, :support], labels, ways)
        counts = one.support_labels[0].bincount(minlength=ways).to(features.dtype).unsqueeze(0)
        familiar = learner.head.familiarity(state, features[:, support:], counts)[0]
        familiar = familiar.unflatten(0, (count, -1)).mean(0).cpu()
        inside = (one.query_labels[0] < ways).cpu()
        found.logits.append(predictions[0].cpu()[inside])
        found.labels.append(one.query_labels[0].cpu()[inside])
        found.known.append(familiar[inside])
        found.unknown.append(familiar[~inside])


def _restricted(episode: Episode, ways: int) -> Episode:
    """The support of the first classes alone; the queries of all."""
    if ways == episode.ways:
        return episode
    order = episode.support_labels.argsort(dim=1, stable=True)  # class by class, as many of each
    rows = order[:, : ways * (order.shape[1] // episode.ways)]
    several = torch.arange(episode.tasks, device=rows.device).unsqueeze(1)
    return replace(
        episode,
        support_images=episode.support_images[several, rows],
        support_labels=episode.support_labels[several, rows],
        support_views=None,
        ways=ways,
    )


def calibrated(
    learner: MetaFiLM,
    samplers: Sequence[Sampler],
    episodes: int,
    tasks: dict[str, Any],
    *,
    progress: bool | None = None,
) -> tuple[Calibration, dict[int, Judgements]]:
    """Temperature and quantiles of familiarity from validation tasks, of each sampler; and what was judged.

    Args:
        samplers: of tasks of different numbers of shots.
        episodes: of each.
        tasks: what the calibration says of them.

    Raises:
        MetafilmError: two samplers of the same number of shots; see :func:`judge` and
            :func:`metafilm.evaluation.calibration.fit_temperature`.
    """
    levels = {}
    for sampler in samplers:
        episode = sampler.batch([0])
        shots = episode.support_labels.shape[1] // episode.ways
        levels[shots] = judge(learner, sampler, episodes, progress=progress)
    if len(levels) < len(samplers):
        raise MetafilmError(f"{len(samplers)} samplers of tasks of {sorted(levels)} shots; give one of each")
    found = Calibration(
        tuple(_level(shots, part) for shots, part in sorted(levels.items())), learner.fingerprint(), tasks
    )
    return found, levels


def _level(shots: int, judged: Judgements) -> Level:
    temperature = fit_temperature(torch.cat(judged.logits), torch.cat(judged.labels))
    familiar = torch.cat(judged.known).double().sort().values
    places = torch.linspace(0, len(familiar) - 1, QUANTILES, dtype=torch.float64)
    low = places.floor().long()
    high = (low + 1).clamp(max=len(familiar) - 1)
    quantiles = familiar[low] + (places - low) * (familiar[high] - familiar[low])
    kept = tuple(float(f"{value:.6g}") for value in quantiles.tolist())
    return Level(shots, float(f"{temperature:.6g}"), kept)
