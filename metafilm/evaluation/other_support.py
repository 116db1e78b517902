"""Another task's support set, for the task encoder to read: what it gains from the task's own is the
difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from episodes import Episode
from episodes.sampling.prefetch import Sampler
from metafilm.errors import MetafilmError

WHOLE = 4  # following episodes of which one without a shared class is looked for
PATIENCE = 32  # following episodes from which classes are taken one by one
FAR = 1000  # following episodes of a mixture among which one of another domain is looked for


class OtherSupport:
    """Support sets without a class of the task they are for, wherever the classes are enough for that, and of
    the same domain: in a mixture, of the same pool.

    It is the whole support of one of the next four episodes, if one shares no class with the task; else as
    many foreign classes as the task has, taken one by one from the episodes that follow. Where there are too
    few, classes of the task fill up.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._known: dict[int, set[int]] = {}  # by pool the classes seen so far
        self._all_known: set[int] = set()  # pools of which these are all

    def of(self, episode: Episode) -> tuple[Episode, list[int]]:
        """For T tasks T support sets, as an episode without queries on the same device, and how many classes
        each shares with its task.

        Raises:
            MetafilmError: they have several shapes, or the task's pool is all but never drawn.
        """
        found = [self._for(episode.select(task)) for task in range(episode.tasks)]
        return _together([other for other, _ in found], episode), [shared for _, shared in found]

    def _for(self, task: Episode) -> tuple[Episode, int]:
        own, pool = set(_classes(task)), _pool(task)
        known = self._known.setdefault(pool, set())
        known |= own
        pieces: dict[int, dict[int, Tensor]] = {}  # shots -> class -> its images
        found: dict[int, Tensor] = {}
        foreign: list[int] = []
        for step, other in enumerate(islice(self._following(task), PATIENCE), 1):
            names = _classes(other)
            if step <= WHOLE and not own.intersection(names):
                return _bare(other.support_images, other.support_labels, other.ways), 0
            known.update(names)
            found = pieces.setdefault(other.shots, {})
            for label, name in enumerate(names):
                found.setdefault(name, other.support_images[:, other.support_labels[0] == label])
            foreign = [name for name in found if name not in own]
            there = len(known - own) if pool in self._all_known else task.ways
            if step >= WHOLE and len(found) >= task.ways and len(foreign) >= min(task.ways, there):
                break
        else:
            self._all_known.add(pool)  # so many episodes have shown the classes that there are
        chosen = [*foreign, *(name for name in found if name in own)][: task.ways]
        if not chosen:
            raise MetafilmError(_too_rare(task, "its"))
        shots = found[chosen[0]].shape[1]
        labels = torch.arange(len(chosen)).repeat_interleave(shots).unsqueeze(0)
        support = _bare(torch.cat([found[name] for name in chosen], 1), labels, len(chosen))
        return support, len(own.intersection(chosen))

    def _following(self, task: Episode) -> Iterator[Episode]:
        """The episodes after the task's of its own domain."""
        for number in range(int(task.index[0]) + 1, int(task.index[0]) + FAR + 1):
            other = self.sampler.batch([number])
            if _pool(other) == _pool(task):
                yield other


class OtherDomain:
    """Support sets of another domain than the task's: of another pool of the mixture that the task is from,
    or of other samplers.

    sampler: of the tasks. others: of other data sets, each in its turn; none: the task's own mixture, of
    which the next episode from another pool is taken.
    """

    def __init__(self, sampler: Sampler, others: Sequence[Sampler] = ()) -> None:
        self.sampler, self.others = sampler, tuple(others)

    def of(self, episode: Episode) -> tuple[Episode, list[int]]:
        """For T tasks T support sets, as an episode without queries on the same device, and how many classes
        each shares with its task: none.

        Raises:
            MetafilmError: there is one domain alone, or they have several shapes.
        """
        found = [self._for(episode.select(task)) for task in range(episode.tasks)]
        bare = [_bare(other.support_images, other.support_labels, other.ways) for other in found]
        return _together(bare, episode), [0] * episode.tasks

    def _for(self, task: Episode) -> Episode:
        number = int(task.index[0])
        if self.others:
            return self.others[number % len(self.others)].batch([number])
        if task.pool_ids is None:
            raise MetafilmError(
                "the tasks are of one data set alone, so that there is no other domain for the task encoder "
                "to read; name several data sets with --dataset, or score a learner of a mixture"
            )
        for step in range(1, FAR + 1):
            other = self.sampler.batch([number + step])
            if _pool(other) != _pool(task):
                return other
        raise MetafilmError(_too_rare(task, "another"))


def _together(found: Sequence[Episode], episode: Episode) -> Episode:
    """The support sets for an episode's tasks in one episode, on its device.

    Raises:
        MetafilmError: they have several shapes.
    """
    shapes = {(other.ways, other.shots) for other in found}
    if len(shapes) > 1:
        raise MetafilmError(
            f"another support needs tasks of one shape, these have (ways, shots) {sorted(shapes)}; fix "
            "--ways and --shots"
        )
    return Episode.cat(found).to(episode.device)


def _classes(task: Episode) -> list[int]:
    """The class of each label of one task; none for functions."""
    return [] if task.class_ids is None else task.class_ids[0].tolist()


def _pool(task: Episode) -> int:
    """The pool that one task is from."""
    return 0 if task.pool_ids is None else int(task.pool_ids[0])


def _too_rare(task: Episode, whose: str) -> str:
    return (
        f"none of the {FAR} episodes after episode {int(task.index[0])} is of {whose} data set of the "
        "mixture; let each be drawn more often"
    )


def _bare(images: Tensor, labels: Tensor, ways: int) -> Episode:
    """A support set alone."""
    return Episode(images, labels, images[:, :0], labels[:, :0], ways, torch.zeros(1, dtype=torch.long))
