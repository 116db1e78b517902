"""Few-shot accuracy with its interval, by stage of adaptation, and a record of how it was obtained."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from episodes import Episode
from episodes.progress import Progress
from episodes.sampling.prefetch import Sampler
from metafilm.engine.distributed import Group
from metafilm.errors import MetafilmError
from metafilm.learner.learner import MetaFiLM

TOGETHER = 8  # tasks adapted to together
ENCODER_SUPPORT = ("own", "shuffled", "none")


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean: 1.96 times the standard error (ddof 1) over
    episodes.
    """
    count = len(values)
    if count < 2:
        return math.nan
    mean = sum(values) / count
    return 1.96 * math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)


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
) -> dict[str, Any]:
    """Score a learner on episodes 0 ... ``episodes`` - 1 of a sampler.

    Args:
        learner: put into evaluation mode for the time being.
        steps: inner steps; None: the learner's ``evaluation_steps``.
        encoder_support: whose support set the task encoder reads: the task's ``own``; another task's
            (``shuffled``: the next episode's, so each is used once); ``none``: the encoder is off.
        by_stage: score every stage, not the last alone.
        max_tasks: tasks whose support sets are adapted to together; the result does not depend on it but for
            rounding. None: 8, and one by one with shuffled support, so that shapes may vary.
        progress: show a bar: True, False, or when it lasts and somebody looks (None).
        group: the processes that share the episodes; all of them get the result of all.
        precision: ``float32`` (the learner's own) or ``bfloat16``: the backbone under autocast.

    Returns:
        ``accuracy`` (percent; ``mse`` for regression) of the last stage, ``ci95``, ``accuracy_by_step``
        (``mse_by_step``): the same for each of ``stages``, ``ci95_by_step``; ``stages`` names them
        (``identity``: δ = 0, ``encoder``: δ⁰, ``step k``); ``episodes``, ``steps``, ``encoder_support``,
        ``protocol``, ``precision``, ``wall_seconds``.

    Raises:
        MetafilmError: fewer than two episodes, an unknown ``encoder_support`` or precision.
    """
    if episodes < 2:
        raise MetafilmError(f"{episodes} episodes give no interval; use at least 2")
    if encoder_support not in ENCODER_SUPPORT:
        raise MetafilmError(
            f"unknown encoder support {encoder_support!r}; expected {', '.join(ENCODER_SUPPORT)}"
        )
    if encoder_support == "shuffled" and learner.encoder is None:
        raise MetafilmError(
            "this learner has no task encoder, so no support set can be shuffled for it; use own"
        )
    if precision not in ("float32", "bfloat16"):
        raise MetafilmError(f"unknown precision {precision!r}; expected float32 or bfloat16")
    begin = time.perf_counter()
    was_training, was_autocast = learner.training, learner.autocast
    learner.eval()
    learner.autocast = precision == "bfloat16"
    stages: list[str] = []
    scores: dict[int, list[float]] = {}
    group = group or Group()
    mine = group.share(range(episodes))
    numbers = [mine[start : start + 16] for start in range(0, len(mine), 16)]
    try:
        with torch.no_grad(), Progress("evaluating", total=len(mine), show=progress) as bar:
            together = max_tasks or (1 if encoder_support == "shuffled" else TOGETHER)
            for chunk in sampler.prefetch(numbers, together):
                for episode in chunk:
                    episode = episode.to(learner.mean.device)
                    other = (
                        _next_support(sampler, episode, episodes) if encoder_support == "shuffled" else None
                    )
                    for part, names, predictions in staged(
                        learner,
                        episode,
                        steps=steps,
                        by_stage=by_stage,
                        encoder_episode=other,
                        use_encoder=encoder_support != "none",
                    ):
                        stages = names
                        rows = [
                            learner.head.measure(prediction, part.query_labels).tolist()
                            for prediction in predictions
                        ]
                        for position, number in enumerate(part.index.tolist()):
                            scores[number] = [row[position] for row in rows]
                    bar.advance(episode.tasks)
    finally:
        learner.train(was_training)
        learner.autocast = was_autocast
    columns = _gathered(scores, episodes, len(stages), group)
    means = [sum(column) / len(column) for column in columns]
    widths = [interval(column) for column in columns]
    measure = learner.head.metric
    return {
        measure: means[-1],
        "ci95": widths[-1],
        f"{measure}_by_step": means,
        "ci95_by_step": widths,
        "stages": stages,
        "episodes": episodes,
        "steps": learner.evaluation_steps if steps is None else steps,
        "encoder_support": encoder_support if learner.encoder is not None else "none",
        "protocol": learner.protocol,
        "precision": precision,
        "wall_seconds": time.perf_counter() - begin,
    }


def staged(
    learner: MetaFiLM,
    episode: Episode,
    *,
    steps: int | None = None,
    by_stage: bool = False,
    encoder_episode: Episode | None = None,
    use_encoder: bool = True,
) -> Iterator[tuple[Episode, list[str], list[Tensor]]]:
    """Adapt to T tasks together and predict their queries, image tasks one by one: one task's queries fill
    the cache as it is. Tasks of vectors go all together.

    Yields:
        Part of the tasks, the names of the stages (the last alone unless ``by_stage``) and their predictions
        ``[t, Q, ways]``.
    """
    found = learner.adaptation(episode, steps=steps, encoder_episode=encoder_episode, use_encoder=use_encoder)
    first = 0 if by_stage else -1
    stages, films = found.stages[first:], found.films[first:]
    size = 1 if episode.query_images.dim() == 5 else episode.tasks
    for start in range(0, episode.tasks, size):
        part = slice(start, start + size)
        mine = episode.select(part)
        own = [{name: value[part] for name, value in film.items()} for film in films]
        yield mine, stages, [prediction for prediction, _ in learner.predictions(mine, own)]


def _gathered(
    scores: dict[int, list[float]], episodes: int, stages: int, group: Group
) -> list[tuple[float, ...]]:
    """For each stage the scores of all episodes in order, those of the other processes too."""
    rows = torch.zeros(episodes, stages, dtype=torch.float64, device=group.device)
    for number, row in scores.items():
        rows[number] = torch.tensor(row, dtype=torch.float64)
    return [tuple(column) for column in group.sum(rows).T.tolist()]


def _next_support(sampler: Sampler, episode: Episode, episodes: int) -> Episode:
    """For each task of the episode the support set of the next one, of the same shape where the sampler has
    it so.
    """
    numbers = [(number + 1) % episodes for number in episode.index.tolist()]
    others = list(sampler.batches(numbers, None))
    if len(others) == 1:
        return others[0].to(episode.device)
    shapes = {(other.ways, other.shots) for other in others}
    raise MetafilmError(
        f"shuffled support needs tasks of one shape, these have (ways, shots) {sorted(shapes)}; fix --ways "
        f"and --shots"
    )
