"""The validation task that a learner does worst."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from episodes import Episode
from metafilm.config.sources import Source
from metafilm.learner.learner import MetaFiLM

TOGETHER = 8  # tasks adapted to together


class Query(NamedTuple):
    """A query ``[H, W]`` or ``[H, W, 3]`` uint8, its class, the class it was taken for, and how surely."""

    picture: np.ndarray
    label: str
    named: str
    probability: float


class Worst(NamedTuple):
    """Episode ``number``: its ``accuracy`` in percent, its support's pictures class by class, its queries."""

    number: int
    accuracy: float
    support: list[list[np.ndarray]]
    queries: list[Query]


@torch.no_grad()
def worst_episode(learner: MetaFiLM, source: Source, episodes: int) -> Worst:
    """Of the episodes 0 ... ``episodes`` - 1 the one with the fewest queries right; of equals the first.

    Args:
        learner: of classes; put into evaluation mode for the time being.
        source: with pools, of which the classes' names come.
    """
    sampler = source.sampler
    lowest: tuple[float, int] | None = None
    numbers = [list(range(start, min(start + 16, episodes))) for start in range(0, episodes, 16)]
    with learner.evaluating():
        for chunk in sampler.prefetch(numbers, TOGETHER):
            for episode in chunk:
                episode = episode.to(learner.mean.device)
                logits = learner(episode).predictions[-1]
                right = learner.head.measure(logits, episode.query_labels)
                found = min(zip(right.tolist(), episode.index.tolist(), strict=True))
                lowest = found if lowest is None else min(lowest, found)
        assert lowest is not None  # a validation has episodes
        accuracy, number = lowest
        episode = sampler.batch([number]).to(learner.mean.device)
        probabilities = learner(episode).predictions[-1][0].softmax(-1)
    names = class_names(source, episode)
    labels = episode.query_labels[0].tolist()
    pictures = [as_picture(image) for image in learner.unit(episode.query_images)[0]]
    chances, named = (values.tolist() for values in probabilities.max(-1))
    support: list[list[np.ndarray]] = [[] for _ in range(episode.ways)]
    for image, label in zip(
        learner.unit(episode.support_images)[0], episode.support_labels[0].tolist(), strict=True
    ):
        support[label].append(as_picture(image))
    queries = [
        Query(picture, names[label], names[other], chance)
        for picture, label, other, chance in zip(pictures, labels, named, chances, strict=True)
    ]
    return Worst(number, accuracy, support, queries)


def class_names(source: Source, episode: Episode) -> list[str]:
    """The names of one task's classes, by label."""
    several = len(source.pools) > 1
    if episode.class_ids is None or (episode.pool_ids is not None and not several):
        return [str(label) for label in range(episode.ways)]  # of a criterion: values, not classes
    pool = source.pools[int(episode.pool_ids[0]) if several and episode.pool_ids is not None else 0]
    return [pool.class_names[i] for i in episode.class_ids[0].tolist()]


def as_picture(image: Tensor) -> np.ndarray:
    """``[C, H, W]`` in [0, 1] -> uint8, grey ``[H, W]`` or ``[H, W, 3]``."""
    array = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return array[0] if len(array) == 1 else np.moveaxis(array[:3], 0, -1)
