"""An episode: support and query images of T tasks of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from episodes.errors import EpisodesError


@dataclass(frozen=True)
class Episode:
    """T tasks of one shape; S = ways x shots support images and Q query images each.

    Inside a task images are class-major: all shots of label 0, then of label 1, and so on. Which class is
    label 0 is random. For regression the "images" are inputs [T, S, 1] and the "labels" targets [T, S, 1],
    both float32, and ways is 0.
    """

    support_images: Tensor  # [T, S, C, H, W] float32 in [0, 1], or uint8
    support_labels: Tensor  # [T, S] int64 in [0, ways)
    query_images: Tensor  # [T, Q, C, H, W] float32 in [0, 1], or uint8
    query_labels: Tensor  # [T, Q] int64 in [0, ways)
    ways: int  # 0 for regression
    index: Tensor  # [T] int64, the episode numbers
    class_ids: Tensor | None = None  # [T, ways] int64: label l of task t is class (or value) class_ids[t, l]
    support_ids: Tensor | None = None  # [T, S] int64, row numbers in the pool's images
    query_ids: Tensor | None = None  # [T, Q] int64
    support_views: Tensor | None = None  # [T, V, S, C, H, W] augmented copies of the support
    pool_ids: Tensor | None = None  # [T] int64, which pool of a mixture, or which criterion

    @property
    def tasks(self) -> int:
        """T, the number of tasks."""
        return self.support_labels.shape[0]

    @property
    def shots(self) -> int:
        """Support images per class; for regression the number of support points."""
        return self.support_labels.shape[1] // max(self.ways, 1)

    @property
    def queries(self) -> int:
        """Query images per class; for regression the number of query points."""
        return self.query_labels.shape[1] // max(self.ways, 1)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.support_images.device

    def _map(self, function) -> "Episode":
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "ways"}
        return replace(self, **{k: None if v is None else function(v) for k, v in tensors.items()})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Episode":
        """The same episode on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin(self) -> "Episode":
        """A copy in page-locked memory, from which transfers to an accelerator may overlap with work."""
        return self._map(lambda tensor: tensor.pin_memory())

    def select(self, task: int | slice) -> "Episode":
        """Task number `task` (counted from 0, or from -1 backwards) as an episode of one task, or a slice of
        the tasks; views, no copies."""
        if isinstance(task, slice):
            if not range(*task.indices(self.tasks)):
                raise EpisodesError(
                    f"{task} of an episode with {self.tasks} tasks is empty: choose at least one"
                )
            return self._map(lambda tensor: tensor[task])
        if not -self.tasks <= task < self.tasks:
            raise EpisodesError(
                f"task {task} of an episode with {self.tasks} tasks: choose 0 to {self.tasks - 1}"
            )
        task %= self.tasks
        return self._map(lambda tensor: tensor[task : task + 1])

    @staticmethod
    def cat(episodes: Sequence["Episode"]) -> "Episode":
        """One episode of all the tasks of several, in order.

        Raises EpisodesError when there are none, when ways or shapes differ, or when only some have an
        optional field.
        """
        if not episodes:
            raise EpisodesError("Episode.cat got no episodes: give at least one")
        joined: dict[str, Tensor | None] = {}
        if len(ways := {episode.ways for episode in episodes}) > 1:
            raise EpisodesError(
                f"Episode.cat needs equal ways, got {sorted(ways)}: join episodes of one shape"
            )
        for name in (f.name for f in fields(Episode) if f.name != "ways"):
            parts = [getattr(episode, name) for episode in episodes]
            if all(part is None for part in parts):
                joined[name] = None
                continue
            shapes = [None if part is None else tuple(part.shape[1:]) for part in parts]
            if len(set(shapes)) > 1:
                raise EpisodesError(
                    f"Episode.cat: {name} has shapes (without the task axis) {shapes}: join episodes of "
                    "one shape"
                )
            joined[name] = torch.cat(parts)
        return replace(episodes[0], **joined)


def shape_in_words(ways: int, shots: int) -> str:
    """What tasks of so many ways and shots are called: ``5-way 1-shot``, and of functions ``10-point``."""
    return f"{ways}-way {shots}-shot" if ways else f"{shots}-point"
