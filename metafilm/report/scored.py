"""A learner on some tasks: scores by stage, how sure it was, what it took for what, and its deviations."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from episodes import Episode
from episodes.progress import Progress
from metafilm import film
from metafilm.config.sources import Source
from metafilm.errors import NotFinite
from metafilm.evaluation.scoring import TOGETHER, by_task
from metafilm.evaluation.summary import by_domain, summary
from metafilm.evaluation.worth import farthest
from metafilm.learner.finite import require_finite_weights
from metafilm.learner.learner import MetaFiLM
from metafilm.report.naming import Names

WORST = 5  # episodes that are shown
CALIBRATED = "calibrated"  # the last stage once more, at the temperature kept with the weights
MOST_STEPS = 3  # inner steps that are all predicted at


@dataclass
class Seen:
    """One task with what was said of it. ``logits``: ``[Q, ways]``, for functions the values ``[Q, 1]``."""

    episode: Episode
    logits: Tensor
    score: float
    loss: float


@dataclass
class Scored:
    """What came of some tasks.

    Attributes:
        stages: names of the stages of adaptation.
        rows: a score per task and stage: percent right, or mean squared error.
        pools: each task's pool, or criterion.
        films: the last stage's deviations of each task ``[T, P]``, all parameters in a row.
        sure, right: by stage, and where the weights were calibrated once more, for each query the probability
            of the class said, and whether it was right.
        pairs: how often each class (name) was taken for each other.
        met: how often a query of the first class could have been taken for the second.
        group_pairs: how often a query of the first group was taken for the second, the right ones included.
        wrong_inside: how often a query was taken for another class of its own group.
        worst: tasks with the lowest score, the worst first.
        whole: whether the inner steps move whole weights, which ``films`` don't have.
    """

    measure: str
    stages: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    pools: list[int] = field(default_factory=list)
    films: list[Tensor] = field(default_factory=list)
    sure: dict[str, list[Tensor]] = field(default_factory=dict)
    right: dict[str, list[Tensor]] = field(default_factory=dict)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    group_pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong_inside: Counter[str] = field(default_factory=Counter)
    worst: list[Seen] = field(default_factory=list)
    whole: bool = False
    seconds: float = 0.0

    @property
    def farthest(self) -> int:
        """The place of the last stage there is; the learner itself may end before it."""
        return farthest(self.stages)

    @property
    def regression(self) -> bool:
        return self.measure == "mse"

    def scores(self) -> dict[str, Any]:
        """Means, intervals and paired gains (:func:`metafilm.evaluation.summary.summary`)."""
        return summary(self.rows, self.measure, len(self.stages))

    def domains(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The same of each pool or criterion by its name; empty where there is one alone."""
        if len(set(self.pools)) < 2:
            return {}
        return by_domain(self.rows, self.pools, names, self.measure, len(self.stages))


def score(
    learner: MetaFiLM, source: Source, episodes: int, names: Names, progress: bool | None = None
) -> Scored:
    """Adapt to episodes 0 ... ``episodes`` - 1 and predict their queries at every stage.

    Raises:
        NotFinite: weights or predictions are NaN or infinite.
    """
    require_finite_weights(learner)
    found = Scored(learner.head.metric, whole=learner.whole)
    begin = time.perf_counter()
    numbers = [range(start, min(start + TOGETHER, episodes)) for start in range(0, episodes, TOGETHER)]
    with learner.evaluating(), torch.no_grad(), Progress("scoring tasks", episodes, progress) as bar:
        for chunk in source.sampler.prefetch(numbers, TOGETHER):
            for episode in chunk:
                _add(found, learner, episode.to(learner.mean.device), names)
                bar.advance(episode.tasks)
    found.seconds = time.perf_counter() - begin
    return found


def _add(found: Scored, learner: MetaFiLM, episode: Episode, names: Names) -> None:
    adapted = learner.adaptation(episode)
    which = shown(adapted.stages)
    stages, films = [adapted.stages[i] for i in which], [adapted.films[i] for i in which]
    each = [[said for said, _ in learner.predictions(*one)] for one in by_task(episode, films)]
    predictions = [torch.cat(parts) for parts in zip(*each, strict=True)]
    found.stages = stages
    for stage, prediction in zip(stages, predictions, strict=True):
        if not prediction.isfinite().all():
            raise NotFinite(
                f"the predictions at stage {stage!r} are not finite, though the weights are; lower "
                "inner.step_size, or look for NaN in the images"
            )
    measured = [learner.head.measure(value, episode.query_labels).tolist() for value in predictions]
    found.rows += map(list, zip(*measured, strict=True))
    found.pools += [0] * episode.tasks if episode.pool_ids is None else episode.pool_ids.tolist()
    found.films.append(flat(learner, films[found.farthest], episode.tasks))
    last = predictions[-1]
    losses = learner.head.loss(last, episode.query_labels).tolist()
    if not learner.regression:
        judged = dict(zip(stages, predictions, strict=True))
        if (calibration := learner.calibrated()) is not None:
            judged[CALIBRATED] = last / calibration.temperature(
                episode.support_labels.shape[1] / episode.ways
            )
        for stage, prediction in judged.items():
            sure, said = prediction.softmax(-1).max(-1)
            found.sure.setdefault(stage, []).append(sure.flatten().cpu())
            found.right.setdefault(stage, []).append((said == episode.query_labels).flatten().cpu())
    for task in range(episode.tasks):
        one = episode.select(task)
        found.worst.append(Seen(one.to("cpu"), last[task].cpu(), measured[-1][task], losses[task]))
        if not learner.regression:
            _confused(found, names, one, last[task])
    found.worst = sorted(found.worst, key=_error if learner.regression else _wrong)[:WORST]


def _wrong(seen: Seen) -> tuple[float, float]:
    return seen.score, -seen.loss


def _error(seen: Seen) -> float:
    return -seen.loss


def shown(stages: Sequence[str]) -> list[int]:
    """Which stages are predicted at: all but, of many steps, those between the first and the last."""
    steps = [i for i, stage in enumerate(stages) if stage.startswith("step ")]
    between = set(steps[1:-1]) if len(steps) > MOST_STEPS else set()
    return [i for i in range(len(stages)) if i not in between]


def _confused(found: Scored, names: Names, task: Episode, logits: Tensor) -> None:
    called, groups = names.of(task), names.groups_of(task)
    said = logits.argmax(-1).tolist()
    for true, taken in zip(task.query_labels[0].tolist(), said, strict=True):
        for other in range(task.ways):
            if other != true:
                found.met[called[true], called[other]] += 1
        if taken != true:
            found.pairs[called[true], called[taken]] += 1
        if groups is not None:
            found.group_pairs[groups[true], groups[taken]] += 1
            found.wrong_inside[groups[true]] += taken != true and groups[true] == groups[taken]


def flat(learner: MetaFiLM, deviations: dict[str, Tensor], tasks: int) -> Tensor:
    """A film dict ``[T, C]`` each as ``[T, P]`` on the CPU, parameter after parameter as the backbone has
    them; ``{}``: zeros."""
    sizes = {name: value.numel() for name, value in film.parameters(learner.backbone).items()}
    if not deviations:
        return torch.zeros(tasks, sum(sizes.values()))
    return torch.cat([deviations[name].detach().float().cpu() for name in sizes], 1)


def columns_of(learner: MetaFiLM) -> dict[str, tuple[slice, slice]]:
    """Where each site's gain and bias deviations stand in :func:`flat`'s rows."""
    places, start = {}, 0
    for name, value in film.parameters(learner.backbone).items():
        places[name] = slice(start, start + value.numel())
        start += value.numel()
    return {
        site: (places[film.names(site)[0]], places[film.names(site)[1]])
        for site in film.sites(learner.backbone)
    }


def adapted_films(
    learner: MetaFiLM, sampler: Any, episodes: int, describe: Callable[[Episode], str]
) -> tuple[Tensor, list[str]]:
    """Deviations ``[T, P]`` of tasks whose queries are not asked, and what each is of, in words."""
    films, said = [], []
    numbers = [range(start, min(start + TOGETHER, episodes)) for start in range(0, episodes, TOGETHER)]
    with learner.evaluating(), torch.no_grad(), Progress("mapping tasks", episodes) as bar:
        for chunk in sampler.prefetch(numbers, TOGETHER):
            for episode in chunk:
                episode = episode.to(learner.mean.device)
                films.append(
                    flat(learner, learner.adaptation(episode, all_stages=False).films[-1], episode.tasks)
                )
                said += [describe(episode.select(task)) for task in range(episode.tasks)]
                bar.advance(episode.tasks)
    return torch.cat(films), said
