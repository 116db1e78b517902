"""What samplers draw: shapes, classes and rows of episodes, each from (seed, episode number) alone."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.attribute import Attribute
from episodes.counter import Stream, first_of_shuffled, integers, uniforms, words
from episodes.errors import EpisodesError
from episodes.pool import ClassPool


class Table:
    """Classes as samplers need them, in numpy: how many images each has, where they lie, which belong
    together."""

    def __init__(
        self,
        offsets: NDArray[np.int64],
        groups: NDArray[np.int64] | None = None,
        rows: NDArray[np.int64] | None = None,
        numbers: NDArray[np.int64] | None = None,
    ) -> None:
        """offsets: [classes + 1]; class c's images are rows offsets[c] to offsets[c + 1] - 1, or those
        entries of `rows`. groups: [classes]. numbers: [classes] what the classes are called in episodes, 0,
        1, ... by default."""
        self.offsets, self.counts = offsets, np.diff(offsets)
        self.num_classes = len(self.counts)
        self.rows, self.numbers = rows, numbers
        if groups is None:
            return
        self.group_sizes = np.bincount(groups)
        self.members = np.zeros((len(self.group_sizes), int(self.group_sizes.max())), np.int64)
        for group, size in enumerate(self.group_sizes):
            self.members[group, :size] = np.flatnonzero(groups == group)

    @classmethod
    def of_pool(cls, pool: ClassPool) -> "Table":
        """The classes of a pool."""
        return cls(pool.offsets.numpy(), None if pool.groups is None else pool.groups.numpy())

    @classmethod
    def of_attribute(cls, attribute: Attribute, least: int) -> "Table":
        """The values of an attribute that at least `least` images have; there must be one."""
        counts = attribute.counts.numpy()
        able = np.flatnonzero(counts >= least)
        values = attribute.values.numpy()
        order = np.argsort(values, kind="stable")
        rows = order[np.isin(values[order], able)]
        offsets = np.concatenate([[0], np.cumsum(counts[able])])
        groups = None if attribute.groups is None else attribute.groups.numpy()[able]
        return cls(offsets, groups, rows, able)


def episode_numbers(indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [T]. Raises EpisodesError unless they are a non-empty list of integers from 0."""
    try:
        numbers = np.asarray(indices)
        whole = numbers.ndim == 1 and len(numbers) > 0 and numbers.dtype.kind in "iu"
        if whole and numbers.min() >= 0 and numbers.max() <= np.iinfo(np.int64).max:
            return numbers.astype(np.int64, copy=False)
    except (TypeError, ValueError):
        pass
    raise EpisodesError(f"episode numbers are a non-empty list of integers from 0, got {indices!r}")


def draw_shapes(
    seed: int, numbers: NDArray[np.int64], ways: tuple[int, int], shots: tuple[int, int]
) -> list[tuple[int, int]]:
    """(ways, shots) of each episode, drawn evenly from inclusive ranges."""
    if ways[0] == ways[1] and shots[0] == shots[1]:
        return [(ways[0], shots[0])] * len(numbers)
    draws = uniforms(seed, numbers, Stream.SHAPE, (2,))
    columns = []
    for column, (low, high) in enumerate((ways, shots)):
        columns.append(low + np.floor(draws[:, column] * (high - low + 1)).astype(int))
    return list(zip(*(column.tolist() for column in columns), strict=True))


def the_one_shape(shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(ways, shots) that all episodes of a batch have. Raises EpisodesError when they differ."""
    if len(set(shapes)) != 1:
        raise EpisodesError(
            f"episodes of one batch must have one shape, these have (ways, shots) {sorted(set(shapes))}: "
            "use `batches`, which groups them by shape"
        )
    return shapes[0]


def cumulated(weights: Sequence[float] | None, count: int) -> NDArray[np.float64]:
    """Rising shares [count] that end at one, for `draw_which`; equal shares without weights."""
    share = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    return np.cumsum(share / share.sum())


def draw_which(
    seed: int, numbers: NDArray[np.int64], stream: Stream, shares: NDArray[np.float64]
) -> NDArray[np.int64]:
    """int64 [T]: which of several (pools, criteria) each episode is of."""
    if len(shares) == 1:
        return np.zeros(len(numbers), np.int64)
    which = np.searchsorted(shares, uniforms(seed, numbers, stream), side="right")
    return np.minimum(which, len(shares) - 1)  # the shares may sum to a hair less than one


def draw_classes(
    seed: int, numbers: NDArray[np.int64], table: Table, ways: int, within_group: bool
) -> NDArray[np.int64]:
    """int64 [T, ways]: distinct classes of the table in the order of their labels."""
    if not within_group:
        keys = words(seed, numbers, Stream.CLASSES, (table.num_classes,))
        return first_of_shuffled(keys, ways)
    able = np.flatnonzero(table.group_sizes >= ways)
    share = np.cumsum(table.group_sizes[able])
    groups = able[np.searchsorted(share, integers(seed, numbers, Stream.GROUP, share[-1]), side="right")]
    sizes = table.group_sizes[groups]
    keys = words(seed, numbers, Stream.CLASSES, (int(sizes.max()),))
    return table.members[groups[:, None], first_of_shuffled(keys, ways, sizes)]


def draw_rows(
    seed: int, numbers: NDArray[np.int64], table: Table, classes: NDArray[np.int64], images: int
) -> NDArray[np.int64]:
    """int64 [T, ways, images]: distinct rows of each class, the support's first."""
    counts = table.counts[classes]
    keys = words(seed, numbers, Stream.IMAGES, (classes.shape[1], int(counts.max())))
    rows = table.offsets[classes][..., None] + first_of_shuffled(keys, images, counts)
    return rows if table.rows is None else table.rows[rows]


def labels(tasks: int, ways: int, images: int) -> Tensor:
    """int64 [tasks, ways * images]: 0, ..., 0, 1, ..., 1, ... in each row."""
    numbers = np.empty((tasks, ways, images), np.int64)
    numbers[:] = np.arange(ways)[:, None]
    return torch.from_numpy(numbers.reshape(tasks, ways * images))
