"""Support images held out of the steps: what a gate scores its candidates on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from episodes import Episode
from metafilm.learner.batches import augmented_views

UNUSED = 1  # seed of the copies that are scored; those that the steps are taken on have seed 0


def counts(labels: Tensor, ways: int) -> Tensor:
    """Support images of each class: ``[T, S]`` -> ``[T, ways]``."""
    return torch.nn.functional.one_hot(labels, ways).sum(1)


def folds(episode: Episode) -> list[Episode]:
    """Two episodes for T tasks of the same class counts: adapt to the support of one, score its queries.

    Each class's images fall into a first and a second half, and an odd one more goes to either half in turn.
    The halves are the support and the queries of one episode, and the other way round of the other. A class
    of one image lends it to both supports, and has no queries.

    Raises:
        ValueError: the tasks differ in their class counts.
    """
    labels = episode.support_labels
    if not (counts(labels, episode.ways) == counts(labels[:1], episode.ways)).all():
        raise ValueError("tasks of other class counts can't be split together")
    # [T, S]: the places of class 0's images, then of class 1's ...
    order = torch.argsort(labels, dim=1, stable=True)
    first, second, alone = _halves(counts(labels, episode.ways)[0].tolist())
    return [
        _split(episode, order[:, sorted(one + alone)], order[:, other])
        for one, other in ((first, second), (second, first))
    ]


def positions(episode: Episode) -> list[list[int]]:
    """Of one task: where in its support the queries of either episode of :func:`folds` stand."""
    order = torch.argsort(episode.support_labels[0], stable=True)
    first, second, _ = _halves(counts(episode.support_labels, episode.ways)[0].tolist())
    return [order[second].tolist(), order[first].tolist()]


def _halves(sizes: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Places among the images sorted by class: the first halves, the second, and those of single images."""
    first, second, alone = [], [], []
    start = odd = 0
    for size in sizes:
        places = list(range(start, start + size))
        start += size
        if size == 1:
            alone += places
            continue
        half = (size + 1 - odd) // 2 if size % 2 else size // 2
        odd = 1 - odd if size % 2 else odd
        first, second = first + places[:half], second + places[half:]
    return first, second, alone


def _split(episode: Episode, support: Tensor, queries: Tensor) -> Episode:
    """These images ``[T, n]`` of each task's support as a support of their own, and those as its queries."""
    tasks = torch.arange(episode.tasks, device=support.device).unsqueeze(1)
    views = episode.support_views
    return Episode(
        support_images=episode.support_images[tasks, support],
        support_labels=episode.support_labels[tasks, support],
        query_images=episode.support_images[tasks, queries],
        query_labels=episode.support_labels[tasks, queries],
        ways=episode.ways,
        index=episode.index,
        support_views=None if views is None else views.transpose(1, 2)[tasks, support].transpose(1, 2),
    )


def with_unused_views(episode: Episode, images: Tensor, views: int, name: str) -> Episode:
    """The episode with copies of its support as its queries, other ones than steps are taken on.

    Args:
        images: ``[T, S, ...]``, its support as floats in [0, 1].
        views: V, copies of each image.
        name: of the augmentation.
    """
    copies = augmented_views(images, views, name, episode.index, seed=UNUSED)
    return replace(
        episode, query_images=copies, query_labels=episode.support_labels.repeat(1, views), query_ids=None
    )
