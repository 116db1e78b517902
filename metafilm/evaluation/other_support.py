"""Another task's support set, for the task encoder to read: what it gains from the task's own is the
difference."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes import Episode
from episodes.sampling.prefetch import Sampler
from metafilm.errors import MetafilmError

WHOLE = 4  # following episodes of which one without a shared class is looked for
PATIENCE = 32  # following episodes from which classes are taken one by one


class OtherSupport:
    """Support sets without a class of the task they are for, wherever the classes are enough for that.

    It is the whole support of one of the next four episodes, if one shares no class with the task; else as
    many foreign classes as the task has, taken one by one from the episodes that follow. Where there are too
    few, classes of the task fill up.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._known: set[tuple[int, int]] = set()  # classes seen so far
        self._all_known = False

    def of(self, episode: Episode) -> tuple[Episode, list[int]]:
        """For T tasks T support sets, as an episode without queries on the same device, and how many classes
        each shares with its task.

        Raises:
            MetafilmError: they have several shapes.
        """
        found = [self._for(episode.select(task)) for task in range(episode.tasks)]
        shapes = {(other.ways, other.shots) for other, _ in found}
        if len(shapes) > 1:
            raise MetafilmError(
                f"shuffled support needs tasks of one shape, these have (ways, shots) {sorted(shapes)}; fix "
                "--ways and --shots"
            )
        return Episode.cat([other for other, _ in found]).to(episode.device), [shared for _, shared in found]

    def _for(self, task: Episode) -> tuple[Episode, int]:
        number, own = int(task.index[0]), set(_classes(task))
        self._known |= own
        pieces: dict[int, dict[tuple[int, int], Tensor]] = {}  # shots -> class -> its images
        for step in range(1, PATIENCE + 1):
            other = self.sampler.batch([number + step])
            names = _classes(other)
            if step <= WHOLE and not own.intersection(names):
                return _bare(other.support_images, other.support_labels, other.ways), 0
            self._known.update(names)
            found = pieces.setdefault(other.shots, {})
            for label, name in enumerate(names):
                found.setdefault(name, other.support_images[:, other.support_labels[0] == label])
            foreign = [name for name in found if name not in own]
            there = len(self._known - own) if self._all_known else task.ways
            if step >= WHOLE and len(found) >= task.ways and len(foreign) >= min(task.ways, there):
                break
        else:
            self._all_known = True  # so many episodes have shown the classes that there are
        chosen = [*foreign, *(name for name in found if name in own)][: task.ways]
        labels = torch.arange(len(chosen)).repeat_interleave(other.shots).unsqueeze(0)
        support = _bare(torch.cat([found[name] for name in chosen], 1), labels, len(chosen))
        return support, len(own.intersection(chosen))


def _classes(task: Episode) -> list[tuple[int, int]]:
    """(pool, class) of each label of one task; none for functions."""
    if task.class_ids is None:
        return []
    pool = 0 if task.pool_ids is None else int(task.pool_ids[0])
    return [(pool, int(number)) for number in task.class_ids[0]]


def _bare(images: Tensor, labels: Tensor, ways: int) -> Episode:
    """A support set alone."""
    return Episode(images, labels, images[:, :0], labels[:, :0], ways, torch.zeros(1, dtype=torch.long))
