"""A sampler's episodes from a `torch.utils.data.DataLoader`, for training loops that ask for one."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.sampling.prefetch import Sampler


class EpisodeDataset(Dataset[Episode]):
    """Episodes by number as a map-style dataset: `[i]` is the sampler's episode i, of one task."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __getitem__(self, index: int) -> Episode:
        return self.sampler.batch([index])

    def __getitems__(self, indices: list[int]) -> Episode:
        """Several at once, as torch's fetchers ask: one Episode, T = len(indices)."""
        return self.sampler.batch(indices)


class MetaBatches:
    """The episode numbers of each meta-batch: `loader.batch_sampler`.

    A pass goes through `count` episodes, `meta_batch` at a time; those of one meta-batch that differ in shape
    (a range of ways or shots) come one shape after the other. With `fresh` each pass takes the next `count`
    episodes.
    """

    def __init__(self, sampler: Sampler, count: int, meta_batch: int, first: int, fresh: bool) -> None:
        self.episodes, self.count, self.meta_batch = sampler, count, meta_batch
        self.first, self.fresh, self.epoch = first, fresh, 0
        self.sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Which pass comes next, counted from 0: a resumed training goes on with its own episodes."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        # a pass counts once somebody takes something of it: with workers, torch makes an iterator too many
        epoch = self.epoch if self.fresh else 0
        self.epoch += 1
        yield from self._of(epoch)

    def __len__(self) -> int:
        """Batches of the coming pass; with ranges of ways or shots another pass may have more or fewer."""
        return sum(1 for _ in self._of(self.epoch if self.fresh else 0))

    def _of(self, epoch: int) -> Iterator[list[int]]:
        start = self.first + epoch * self.count
        for low in range(start, start + self.count, self.meta_batch):
            numbers = range(low, min(low + self.meta_batch, start + self.count))
            by_shape: dict[Any, list[int]] = {}
            for number, shape in zip(numbers, self.episodes.shapes(numbers), strict=True):
                by_shape.setdefault(shape, []).append(number)
            yield from by_shape.values()


def to_dataloader(
    sampler: Sampler,
    count: int,
    meta_batch: int = 1,
    *,
    first: int = 0,
    fresh: bool = True,
    **options: Any,
) -> DataLoader[Episode]:
    """Episodes from a PyTorch `DataLoader`, each item an `Episode` of up to `meta_batch` tasks of one shape.

    Which episodes come is a function of the sampler's seed and the pass alone: not of the number of workers.
    Nothing is shuffled, since episodes are random as they are. (metafilm's own training needs no loader:
    `sampler.prefetch` builds ahead in a thread, without copies between processes.)

    count: episodes of one pass (one epoch). meta_batch: tasks that come together. first: number of the first
    episode. fresh: each pass takes the next `count` episodes, as training wants; False: always the same ones,
    as validation wants. A pass is counted as it begins; `loader.batch_sampler.set_epoch` says which comes
    next. options: further ones of `DataLoader` (num_workers ...).

    Raises EpisodesError for a count or meta_batch below 1, a negative first, or options that the loader sets.
    """
    for name, value, least in (("count", count, 1), ("meta_batch", meta_batch, 1), ("first", first, 0)):
        if value < least:
            raise EpisodesError(f"{name} is {value}: choose at least {least}")
    taken = {"dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "collate_fn"}
    if wrong := sorted(taken & options.keys()):
        raise EpisodesError(
            f"to_dataloader sets {', '.join(wrong)} itself: say how many tasks come together by meta_batch"
        )
    batches = MetaBatches(sampler, int(count), int(meta_batch), int(first), fresh)
    return DataLoader(EpisodeDataset(sampler), batch_sampler=batches, collate_fn=_whole, **options)


def _whole(episode: Any) -> Any:
    """What was fetched together is an Episode already."""
    return episode
