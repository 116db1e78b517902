"""Few-shot accuracy with its interval, by stage of adaptation, and a record of how it was obtained."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from episodes import Episode
from episodes.progress import Progress
from episodes.sampling.prefetch import Sampler
from metafilm.engine.distributed import Group
from metafilm.errors import MetafilmError, NotFinite
from metafilm.evaluation.mean_deviations import in_place_of_encoder, mean_encoder
from metafilm.evaluation.other_support import OtherDomain, OtherSupport
from metafilm.evaluation.remembered import Remembered
from metafilm.evaluation.summary import by_domain, summary
from metafilm.film import FilmDict
from metafilm.learner.finite import require_finite_weights
from metafilm.learner.learner import MetaFiLM

TOGETHER = 8  # tasks adapted to together
ONE_POOL = -1  # the pool of episodes that are of no mixture
ENCODER_SUPPORT = ("own", "shuffled", "mean", "other-domain", "none")


def evaluate(
    learner: MetaFiLM,
    sampler: Sampler,
    episodes: int = 600,
    *,
    steps: int | None = None,
    encoder_support: str = "own",
    by_stage: bool = True,
    max_tasks: int | None = None,
    progress: bool | None = None,
    group: Group | None = None,
    precision: str = "float32",
    gate: bool | None = None,
    other_domains: Sequence[Sampler] = (),
    per_task: list[float] | None = None,
    per_stage: list[list[float]] | None = None,
) -> dict[str, Any]:
    """Score a learner on episodes 0 ... ``episodes`` - 1 of a sampler.

    Args:
        learner: put into evaluation mode for the time being.
        steps: inner steps; None: the learner's ``evaluation_steps``, where its ``stage`` does not end before.
        encoder_support: whose support set the task encoder reads: the task's ``own``; another task's, without
            a class of this one where there are enough (``shuffled``); one of another pool of the sampler's
            mixture, or of ``other_domains`` (``other-domain``); ``mean``: no task's, all get the mean of the
            deviations of 64 other tasks; ``none``: the encoder is off.
        by_stage: score every stage, not the last alone.
        max_tasks: tasks whose support sets are adapted to together; the result does not depend on it but for
            rounding. None: 8, and one by one with another support, so that shapes may vary.
        progress: show a bar: True, False, or when it lasts and somebody looks (None).
        group: the processes that share the episodes; all of them get the result of all.
        precision: ``float32`` (the learner's own) or ``bfloat16``: the backbone under autocast.
        gate: True asks a gate even where the learner has none, False asks none; None: as the learner has it.
        other_domains: samplers of other data sets, for ``other-domain``; each in its turn.
        per_task: takes each episode's score at the last stage, in their order: what two learners are compared
            by on the same tasks.
        per_stage: takes each episode's score at each stage.

    Returns:
        ``accuracy`` (percent; ``mse`` for regression) of the last stage, ``ci95``, ``accuracy_by_step``
        (``mse_by_step``): the same for each of ``stages``, ``ci95_by_step``; ``stages`` names them
        (``identity``: δ = 0, ``encoder``: δ⁰, ``step k``; ``chosen``: the one of them that a learner with a
        ``stage`` adapts to); ``gain_by_step``: what each stage gains over the
        first, with ``gain_ci95_by_step`` from the episodes' own differences; a gain is better when it is
        larger: points of accuracy more, or how much less mean squared error (so an error that falls from 3 to
        1 is a gain of +2). ``by_stage=False`` has none. ``episodes``, ``steps``, ``encoder_support``,
        ``protocol``, ``precision``, ``wall_seconds``.

        With another support, or the mean, also, of the last stage, ``accuracy_own_support``
        (``mse_own_support``), ``encoder_difference``: own minus other, with ``encoder_difference_ci95`` from
        the episodes' own differences, and ``encoder_shared_classes``: how many classes the other support
        shares with the task, a mean over episodes.

        Where the sampler mixes several pools also ``by_domain``: for each pool that had episodes, by its name
        in the sampler's ``domains``, their number ``episodes`` and all of the above that is of scores.

    Raises:
        MetafilmError: fewer than two episodes, tasks without queries, an unknown ``encoder_support`` or
            precision, another support for a learner without a task encoder, or no other domain.
        NotFinite: weights or predictions are NaN or infinite.
    """
    if episodes < 2:
        raise MetafilmError(f"{episodes} episodes give no interval; use at least 2")
    if encoder_support not in ENCODER_SUPPORT:
        raise MetafilmError(
            f"unknown encoder support {encoder_support!r}; expected {', '.join(ENCODER_SUPPORT)}"
        )
    other_support = encoder_support in ("shuffled", "mean", "other-domain")
    if other_support and learner.encoder is None:
        raise MetafilmError(
            "this learner has no task encoder that could read another support set; use --encoder-support own"
        )
    if precision not in ("float32", "bfloat16"):
        raise MetafilmError(f"unknown precision {precision!r}; expected float32 or bfloat16")
    require_finite_weights(learner)
    begin = time.perf_counter()
    if other_support and steps is None:
        steps = learner.evaluation_steps  # with its own support as far as with the other
    options: dict[str, Any] = {"steps": steps, "use_encoder": encoder_support != "none", "gate": gate}
    if Remembered.possible(learner):
        options["remembered"] = Remembered(learner)
    others = OtherSupport(sampler) if encoder_support == "shuffled" else None
    if encoder_support == "other-domain":
        others = OtherDomain(sampler, other_domains)
    mean = mean_encoder(learner, sampler, episodes) if encoder_support == "mean" else None
    stages: list[str] = []
    scores: dict[int, list[float]] = {}  # by episode: of the stages, of its own support, its pool
    group = group or Group()
    mine = group.share(range(episodes))
    numbers = [mine[start : start + 16] for start in range(0, len(mine), 16)]
    with (
        learner.evaluating(),
        learner.in_precision(precision),
        torch.no_grad(),
        Progress("evaluating", total=len(mine), show=progress) as bar,
    ):
        for chunk in sampler.prefetch(numbers, max_tasks or (1 if other_support else TOGETHER)):
            for episode in chunk:
                if not episode.query_labels.shape[1]:
                    raise MetafilmError("tasks without queries can't be scored; give at least 1 query")
                episode = episode.to(learner.mean.device)
                if mean is not None:
                    with in_place_of_encoder(learner, mean):
                        stages, rows = _scores(learner, episode, by_stage=by_stage, **options)
                    _, own = _scores(learner, episode, **options)
                    rows = [[*row, *o, 0.0] for row, o in zip(rows, own, strict=True)]
                elif others is None:
                    stages, rows = _scores(learner, episode, by_stage=by_stage, **options)
                else:
                    other, shared = others.of(episode)
                    stages, rows = _scores(
                        learner, episode, by_stage=by_stage, encoder_episode=other, **options
                    )
                    _, own = _scores(learner, episode, **options)
                    rows = [[*row, *o, float(s)] for row, o, s in zip(rows, own, shared, strict=True)]
                pools = [ONE_POOL] * episode.tasks if episode.pool_ids is None else episode.pool_ids.tolist()
                rows = [[*row, float(pool)] for row, pool in zip(rows, pools, strict=True)]
                scores |= zip(episode.index.tolist(), rows, strict=True)
                bar.advance(episode.tasks)
    # a process without an episode knows no stage; the leader has one
    stages = json.loads(group.send(json.dumps(stages).encode()))
    gathered = _gathered(scores, episodes, len(stages) + 2 * other_support + 1, group)
    rows, pools = [row[:-1] for row in gathered], [int(row[-1]) for row in gathered]
    if per_stage is not None:
        per_stage += [list(row[: len(stages)]) for row in rows]
    if per_task is not None:
        per_task += [row[len(stages) - 1] for row in rows]
    measure, ends_early = learner.head.metric, stages[-1] in ("chosen", learner.stage)
    found = summary(rows, measure, len(stages), by_stage) | {
        "stages": stages,
        "episodes": episodes,
        "steps": 0 if ends_early else learner.evaluation_steps if steps is None else steps,
        "encoder_support": encoder_support if learner.encoder is not None else "none",
        "protocol": learner.protocol,
        "precision": precision,
        "wall_seconds": time.perf_counter() - begin,
    }
    if ONE_POOL not in pools:
        names = getattr(sampler, "domains", ())
        found["by_domain"] = by_domain(rows, pools, names, measure, len(stages), by_stage)
    return found


def _scores(learner: MetaFiLM, episode: Episode, **options: Any) -> tuple[list[str], list[list[float]]]:
    """The stages' names, and for each task its score at each of them; options as of :func:`staged`.

    Raises:
        NotFinite: naming the episode and the stage.
    """
    stages: list[str] = []
    rows: list[list[float]] = []
    for part, names, predictions in staged(learner, episode, **options):
        for stage, prediction in zip(names, predictions, strict=True):
            if not prediction.isfinite().all():
                raise NotFinite(
                    f"the predictions of episode {int(part.index[0])} at stage {stage!r} are not finite, "
                    "though the weights are; lower inner.step_size, or look for NaN in the images"
                )
        stages = names
        columns = [learner.head.measure(value, part.query_labels).tolist() for value in predictions]
        rows += map(list, zip(*columns, strict=True))
    return stages, rows


def staged(
    learner: MetaFiLM,
    episode: Episode,
    *,
    steps: int | None = None,
    by_stage: bool = False,
    encoder_episode: Episode | None = None,
    use_encoder: bool = True,
    gate: bool | None = None,
    remembered: Remembered | None = None,
) -> Iterator[tuple[Episode, list[str], list[Tensor]]]:
    """Adapt to T tasks together and predict their queries (:func:`by_task`). Where nothing adapts,
    ``remembered`` predicts.

    Yields:
        Part of the tasks, the names of the stages (the last alone unless ``by_stage``) and their predictions
        ``[t, Q, ways]``.
    """
    found = learner.adaptation(
        episode,
        steps=steps,
        encoder_episode=encoder_episode,
        use_encoder=use_encoder,
        gate=gate,
        all_stages=by_stage,
    )
    first = 0 if by_stage else -1
    stages, films = found.stages[first:], found.films[first:]
    for mine, own in by_task(episode, films):
        if remembered is not None and films == [{}]:
            yield mine, stages, [remembered.predictions(mine)]
        else:
            yield mine, stages, [prediction for prediction, _ in learner.predictions(mine, own)]


def by_task(episode: Episode, films: Sequence[FilmDict]) -> Iterator[tuple[Episode, list[FilmDict]]]:
    """T tasks with their deviations ``[T, C]``, image tasks one by one: one task's queries fill the cache as
    it is, and their copies need not lie in memory beside those of others."""
    size = 1 if episode.query_images.dim() == 5 else episode.tasks
    for start in range(0, episode.tasks, size):
        part = slice(start, start + size)
        yield (
            episode.select(part),
            [{name: value[part] for name, value in film.items()} for film in films],
        )


def _gathered(scores: dict[int, list[float]], episodes: int, width: int, group: Group) -> list[list[float]]:
    """The row of each episode in order, those of the other processes too."""
    rows = torch.zeros(episodes, width, dtype=torch.float64, device=group.device)
    for number, row in scores.items():
        rows[number] = torch.tensor(row, dtype=torch.float64)
    return group.sum(rows).tolist()
