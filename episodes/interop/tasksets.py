"""Episodes as learn2learn's tasksets and back, without importing learn2learn.

A learn2learn taskset (`learn2learn.data.Taskset`) gives a task as (data [n, ...], labels [n]), support
and query in one; each script then picks its support out of them. Here the rule is: of each label's rows, in
the order they come, the first `shots` are support and the next `queries` are query.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.sampling.prefetch import BaseSampler, Sampler


class Taskset:
    """A sampler as a learn2learn taskset: `len`, `[i]`, iteration and `.sample()` give (data, labels).

    data: [S + Q, C, H, W] float32 in [0, 1], class by class, each class's support images before its query
    images; labels: [S + Q] int64. Task i is episode i, so it is the same every time. (Regression: data and
    labels [S + Q, 1].) With S = ways * shots and as many queries as shots, learn2learn's usual selection of
    every second row as support splits each class evenly.
    """

    def __init__(self, sampler: Sampler, num_tasks: int = 20_000) -> None:
        if num_tasks < 1:
            raise EpisodesError(f"num_tasks is {num_tasks}: choose at least 1")
        self.sampler, self.num_tasks = sampler, int(num_tasks)

    def __len__(self) -> int:
        """How many different tasks there are."""
        return self.num_tasks

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Task number `index`; IndexError outside of 0 to num_tasks - 1."""
        if not 0 <= index < self.num_tasks:
            raise IndexError(f"task {index} of {self.num_tasks}")
        episode = self.sampler.batch([index])
        data = torch.cat([episode.support_images[0], episode.query_images[0]])
        labels = torch.cat([episode.support_labels[0], episode.query_labels[0]])
        if episode.ways:
            order = labels.argsort(stable=True)  # stable: a class's support stays before its queries
            data, labels = data[order], labels[order]
        return data, labels

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Tasks 0 to num_tasks - 1."""
        return (self[index] for index in range(self.num_tasks))

    def sample(self) -> tuple[Tensor, Tensor]:
        """A task drawn by Python's `random`, as learn2learn draws its own: seed that to repeat a run."""
        return self[random.randrange(self.num_tasks)]


def to_taskset(sampler: Sampler, num_tasks: int = 20_000) -> Taskset:
    """The first `num_tasks` episodes of a sampler as a learn2learn taskset; see `Taskset`."""
    return Taskset(sampler, num_tasks)


class TasksetSampler(BaseSampler):
    """A learn2learn taskset as a sampler of episodes of one shape.

    Episode i is made of taskset[i]; it is as reproducible as that. (learn2learn draws task i by
    Python's `random` when first asked and keeps it if it has a finite `num_tasks`; with num_tasks=-1 it
    draws afresh each time.) Labels are renumbered 0 to ways - 1 in their order; images come class by class.
    """

    def __init__(self, taskset: Any, shots: int, queries: int, ways: int, scale: float | None = None) -> None:
        if ways < 2 or shots < 1 or queries < 0:
            raise EpisodesError(f"ways={ways}, shots={shots}, queries={queries}: choose at least 2, 1 and 0")
        if not hasattr(taskset, "__getitem__"):
            raise EpisodesError(
                f"{type(taskset).__name__} has no [i]: expected a taskset that gives (data, labels)"
            )
        if scale is not None and not scale > 0:
            raise EpisodesError(f"scale is {scale}: choose a positive number, 255 for images from 0 to 255")
        self.taskset, self.ways, self.shots, self.queries, self.scale = taskset, ways, shots, queries, scale

    def __repr__(self) -> str:
        return f"TasksetSampler(ways={self.ways}, shots={self.shots}, queries={self.queries})"

    def __iter__(self) -> Iterator[Episode]:
        """Episodes 0, 1, 2, ... for as long as the taskset has them."""
        for index in itertools.count():
            try:
                task = self.taskset[index]
            except IndexError:
                return
            yield self._episode(task, index)

    def _episode(self, task: tuple[Any, Any], index: int) -> Episode:
        data, labels = task
        images = self._images(torch.as_tensor(data), index)
        labels = torch.as_tensor(labels).flatten()
        classes = labels.unique()  # sorted
        if len(labels) != len(images) or len(classes) != self.ways:
            raise EpisodesError(
                f"task {index} has {len(images)} images, {len(labels)} labels and {len(classes)} classes: "
                f"expected a label an image and {self.ways} classes"
            )
        rows = []
        for label in classes.tolist():
            members = (labels == label).nonzero().flatten()
            if len(members) < self.shots + self.queries:
                raise EpisodesError(
                    f"task {index} has {len(members)} images of class {label}, but {self.shots} shots + "
                    f"{self.queries} queries need {self.shots + self.queries}: ask for fewer, or build the "
                    "taskset with a larger KShots"
                )
            rows.append(members[: self.shots + self.queries])
        table = torch.stack(rows)  # [ways, shots + queries]
        numbers = torch.arange(self.ways)[None]
        return Episode(
            support_images=images[table[:, : self.shots].flatten()][None],
            support_labels=numbers.repeat_interleave(self.shots, 1),
            query_images=images[table[:, self.shots :].flatten()][None],
            query_labels=numbers.repeat_interleave(self.queries, 1),
            ways=self.ways,
            index=torch.tensor([index]),
        )

    def _images(self, data: Tensor, index: int) -> Tensor:
        if data.ndim != 4:
            raise EpisodesError(
                f"task {index} has data of shape {tuple(data.shape)}: expected images [n, C, H, W]"
            )
        scale = self.scale or (255.0 if data.dtype == torch.uint8 else 1.0)
        images = data.float() / scale
        if not (images.min() >= 0 and images.max() <= 1):
            raise EpisodesError(
                f"task {index} has images from {images.min():.3g} to {images.max():.3g} after dividing by "
                f"{scale:g}, expected [0, 1]: give scale=255 for images from 0 to 255, and take Normalize "
                "out of the transforms"
            )
        return images

    def shapes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """(ways, shots) of each episode: always the same."""
        return [(self.ways, self.shots)] * len(indices)

    def batch(self, indices: Sequence[int]) -> Episode:
        """The episodes of these numbers as one Episode of T = len(indices) tasks."""
        return Episode.cat([self._episode(self.taskset[int(index)], int(index)) for index in indices])


def from_taskset(
    taskset: Any, shots: int, queries: int, ways: int, scale: float | None = None
) -> TasksetSampler:
    """A learn2learn taskset as a sampler (`batch`, `batches`, `prefetch`, `[i]`); see `TasksetSampler`.

    scale: what the images are divided by to lie in [0, 1]; None takes 255 for uint8 and 1 for floating
    point (learn2learn's mini-ImageNet tasks are floating point from 0 to 255: give 255). Raises
    EpisodesError, when a task is drawn, for too few images of a class, another number of classes, or images
    outside of [0, 1].
    """
    return TasksetSampler(taskset, shots, queries, ways, scale)
