"""What inner steps are taken on: the support or a part of it, and augmented copies the loss holds out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from episodes import Episode, counter
from episodes.transforms import augment
from metafilm.learner.network import SharedNetwork, join


def augmented_views(images: Tensor, views: int, name: str, index: Tensor, seed: int = 0) -> Tensor:
    """Copies of each task's support images, a pure function of the images and the episode numbers.

    Args:
        images: ``[T, S, C, H, W]`` float in [0, 1].
        views: V, copies of each image.
        name: augmentation (:func:`episodes.transforms.augment.by_name`); ``"none"`` copies them unchanged.
        index: ``[T]`` episode numbers.
        seed: another one gives other copies.

    Returns:
        ``[T, V·S, C, H, W]``: all of copy 1, then all of copy 2 ...
    """
    copies = images.repeat(1, views, *[1] * (images.dim() - 2))
    by = augment.by_name(name)
    if by is None:
        return copies
    draws = counter.uniforms(
        seed, index.cpu().numpy(), counter.Stream.VIEWS, (copies.shape[1], by.num_uniforms)
    )
    return by(copies.flatten(0, 1), torch.from_numpy(draws).flatten(0, 1)).unflatten(0, copies.shape[:2])


Batch = tuple[Any, Tensor]
"""What a step is taken on, ready for :meth:`SharedNetwork.features` (a task's support rows, then its views),
and the support's labels ``[T, S]``."""


def batches(
    network: SharedNetwork, episode: Episode, views: Tensor | None, size: int | None
) -> Iterator[Batch]:
    """The batch of one step after the other, without end.

    Args:
        episode: T tasks, :func:`alike` where there is a size.
        views: augmented copies of the support ``[T, V·S, ...]``, or None.
        size: support images of each class in a batch, the next ones with each step; None: all, and what the
            network makes of them before its first FiLM site is computed once.
    """
    if size is None:
        return itertools.repeat(_prepared(network, episode, views))
    return _parts(network, episode, views, size)


def _prepared(network: SharedNetwork, episode: Episode, views: Tensor | None) -> Batch:
    tasks, labels = episode.tasks, episode.support_labels
    images = network.prepare(episode.support_images)
    if views is not None:
        images = join(images, network.prepare(views), tasks)
    return network.stem(images, tasks, support=labels.shape[1]), labels


def _parts(network: SharedNetwork, episode: Episode, views: Tensor | None, size: int) -> Iterator[Batch]:
    labels = episode.support_labels
    classes = torch.zeros_like(labels[..., 0]).long() if network.regression else labels
    tasks = torch.arange(episode.tasks, device=labels.device).unsqueeze(1)
    copies = None if views is None else views.unflatten(1, (-1, labels.shape[1]))
    for step in itertools.count():
        rows = balanced_part(classes, max(episode.ways, 1), size, step)
        if rows is None:
            rows = torch.arange(labels.shape[1], device=labels.device).expand(episode.tasks, -1)
        part = replace(
            episode, support_images=episode.support_images[tasks, rows], support_labels=labels[tasks, rows]
        )
        chosen = None if copies is None else copies.transpose(1, 2)[tasks, rows].transpose(1, 2)
        yield _prepared(network, part, None if chosen is None else chosen.flatten(1, 2))


def alike(labels: Tensor, ways: int, size: int) -> list[list[int]]:
    """The numbers of the tasks ``[T, S]``, those together of which :func:`balanced_part` takes equally many
    rows."""
    rows = torch.nn.functional.one_hot(labels, ways).sum(1).clamp(max=size).sum(1).tolist()
    return [[task for task, own in enumerate(rows) if own == number] for number in dict.fromkeys(rows)]


def balanced_part(labels: Tensor, ways: int, size: int, step: int) -> Tensor | None:
    """Which rows of each task's support a step is taken on: up to ``size`` of each class, the next ones with
    each step, so that all have their turn before one comes again.

    Args:
        labels: ``[T, S]`` int64 in [0, ways), of tasks that are :func:`alike`.
        size: of each class; of a smaller class all.
        step: counted from 0.

    Returns:
        ``[T, m]`` int64, rising; None where that is all rows.
    """
    members = torch.nn.functional.one_hot(labels, ways)  # [T, S, ways]
    rank = (members.cumsum(1) - 1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # [T, S] within its class
    count = members.sum(1).gather(1, labels)  # [T, S] of its class
    taken = (rank - step * size) % count < size
    if int(taken[0].sum()) == labels.shape[1]:
        return None
    return taken.nonzero()[:, 1].unflatten(0, (len(labels), -1))
