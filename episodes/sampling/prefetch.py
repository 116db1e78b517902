"""What a sampler is, and batches of its episodes built ahead of time."""

import itertools
import queue
import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Protocol

from episodes.episode import Episode
from episodes.errors import EpisodesError


class Sampler(Protocol):
    """What training and evaluation ask of a source of episodes."""

    def shapes(self, indices: Sequence[int]) -> Sequence[Hashable]:
        """Per episode number, something equal for episodes that can stand in one tensor."""
        ...

    def batch(self, indices: Sequence[int]) -> Episode:
        """The episodes of these numbers, all of one shape, as one Episode of len(indices) tasks."""
        ...

    def batches(self, indices: Sequence[int], max_tasks: int | None = None) -> Iterator[Episode]:
        """The episodes of these numbers as rectangular Episodes of at most `max_tasks` tasks."""
        ...

    def prefetch(
        self, batches_of_indices: Iterable[Sequence[int]], max_tasks: int | None = None, depth: int = 2
    ) -> Iterator[list[Episode]]:
        """For each entry, the list that `batches` would give, built in a background thread."""
        ...


class BaseSampler(Sampler):
    """A sampler from its `shapes` and `batch`: `[i]`, iteration, `batches` and `prefetch` follow."""

    def __getitem__(self, index: int) -> Episode:
        """Episode number `index`, an Episode of one task."""
        return self.batch([index])

    def __iter__(self) -> Iterator[Episode]:
        """Episodes 0, 1, 2, ... without end."""
        return (self[index] for index in itertools.count())

    def batches(self, indices: Sequence[int], max_tasks: int | None = None) -> Iterator[Episode]:
        """Episodes grouped by shape (stable) into rectangular Episodes of at most `max_tasks` tasks."""
        return in_batches(self, indices, max_tasks)

    def prefetch(
        self, batches_of_indices: Iterable[Sequence[int]], max_tasks: int | None = None, depth: int = 2
    ) -> Iterator[list[Episode]]:
        """For each entry the list of its `batches`, built in a background thread, at most `depth` entries
        ahead."""
        return prefetch(self, batches_of_indices, max_tasks, depth)


def in_batches(sampler: Sampler, indices: Sequence[int], max_tasks: int | None = None) -> Iterator[Episode]:
    """Episodes of one shape together, shapes in order of first appearance, at most `max_tasks` tasks at a
    time.

    Raises EpisodesError unless `max_tasks` is None or at least 1.
    """
    if max_tasks is not None and max_tasks < 1:
        raise EpisodesError(f"max_tasks is {max_tasks}: it must be at least 1, or None for no bound")
    by_shape: dict[Hashable, list[int]] = {}
    for number, shape in zip(indices, sampler.shapes(indices), strict=True):
        by_shape.setdefault(shape, []).append(int(number))
    for members in by_shape.values():
        step = max_tasks or len(members)
        for start in range(0, len(members), step):
            yield sampler.batch(members[start : start + step])


def prefetch(
    sampler: Sampler,
    batches_of_indices: Iterable[Sequence[int]],
    max_tasks: int | None = None,
    depth: int = 2,
) -> Iterator[list[Episode]]:
    """One list of Episodes per entry of `batches_of_indices`, in order, at most `depth` entries ahead of the
    consumer.

    One background thread builds them; an exception there is raised here, in its turn; the thread ends when
    the consumer stops, however it stops.
    """
    if depth < 1:
        raise EpisodesError(f"depth is {depth}: prefetching needs to be at least 1 ahead")
    ready: queue.Queue[tuple[list[Episode] | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: tuple[list[Episode] | None, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for indices in batches_of_indices:
                if stop.is_set():
                    return
                put((list(sampler.batches(indices, max_tasks)), None))
            put((None, None))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="episodes-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            episodes, error = ready.get()
            if error is not None:
                raise error
            if episodes is None:
                return
            yield episodes
    finally:
        stop.set()
        thread.join()
