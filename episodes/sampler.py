"""EpisodeSampler: episode i of a pool is a pure function of (seed, i)."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.counter import Stream, first_of_shuffled, integers, uniforms, words
from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.pool import ClassPool, require_square
from episodes.sampling.feasibility import Range, as_range, check_pools, per_pool
from episodes.sampling.prefetch import BaseSampler
from episodes.sampling.table import Table
from episodes.transforms.pixels import empty, gather
from episodes.transforms.protocols import Augment, Transform

Change = TypeVar("Change", bound=Augment | Transform)


class EpisodeSampler(BaseSampler):
    """Draws few-shot episodes from one pool, or from a mixture of pools.

    pools: a ClassPool or several of one image shape. ways, shots: a number, or an inclusive range (low, high)
    drawn per episode. queries: query images per class. within_group: draw an episode's classes from one group
    (an alphabet, a superclass), chosen in proportion to its number of classes among groups with enough of
    them; one value, or one per pool. rotation: "per-class" turns each class of each episode by 0, 90, 180 or
    270 degrees, all its images alike. transform: one draw per episode, for all its images; one for all pools,
    or a list with one or None per pool. augment: one draw per image of support and query; one, or a list per
    pool. views: V copies of each support image through view_augment, made after transform and augment.
    weights: how often each pool of a mixture is drawn, equally by default. pool_run: so many episodes in a
    row come from one pool, 0 to pool_run - 1 first. dtype: torch.float32 for images in [0, 1], or torch.uint8
    for the pixels as they are: a quarter of the memory, to be divided by 255 where they are used (metafilm's
    learners do so), but then nothing may change an image.

    The order is rows, rotation, transform, augment, views. Episode i depends on (seed, i) and these settings
    alone: not on the batch it is in, nor on who asked before. Its classes and images don't depend on how many
    are asked for: with fewer ways it has the first of them.

    Raises EpisodesError when a pool can't serve the request, naming the class or group that falls short.
    """

    def __init__(
        self,
        pools: ClassPool | Sequence[ClassPool],
        ways: Range,
        shots: Range,
        queries: int,
        seed: int = 0,
        *,
        within_group: bool | Sequence[bool] = False,
        rotation: Literal["none", "per-class"] = "none",
        augment: Augment | Sequence[Augment | None] | None = None,
        views: int = 0,
        view_augment: Augment | None = None,
        transform: Transform | Sequence[Transform | None] | None = None,
        weights: Sequence[float] | None = None,
        pool_run: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.pools = (pools,) if isinstance(pools, ClassPool) else tuple(pools)
        self.ways, self.shots, self.queries, self.seed = ways, shots, int(queries), int(seed)
        count = len(self.pools)
        self.within_group = per_pool("within_group", within_group, count)
        self.augment = per_pool("augment", augment, count)
        self.transform = per_pool("transform", transform, count)
        self.rotation, self.pool_run = rotation, int(pool_run)
        self.views, self.view_augment = int(views), view_augment
        self._ways, self._shots = as_range("ways", ways), as_range("shots", shots)
        self._fixed = self._ways[0] == self._ways[1] and self._shots[0] == self._shots[1]
        if self.rotation not in ("none", "per-class"):
            raise EpisodesError(f'rotation is {self.rotation!r}: choose "none" or "per-class"')
        if self.views < 0 or (self.views > 0) != (self.view_augment is not None):
            raise EpisodesError(
                f"views={self.views} and view_augment={self.view_augment!r}: give both (views >= 1) or "
                "neither"
            )
        if self.pool_run < 1:
            raise EpisodesError(f"pool_run={pool_run}: it must be at least 1")
        if dtype not in (torch.float32, torch.uint8):
            raise EpisodesError(f"dtype is {dtype}: choose torch.float32 or torch.uint8")
        changes = [*self.transform, *self.augment]
        if dtype == torch.uint8 and (self.views or any(change is not None for change in changes)):
            raise EpisodesError(
                "dtype torch.uint8 with a transform, augment or views: these need torch.float32"
            )
        self.dtype = dtype
        check_pools(self.pools, self._ways[1], self._shots[1], self.queries, self.within_group, weights)
        if self.rotation == "per-class":
            require_square(self.image_shape)
        share = np.ones(len(self.pools)) if weights is None else np.asarray(weights, np.float64)
        self._shares = np.cumsum(share / share.sum())
        self._tables = [Table(pool) for pool in self.pools]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.pools[0].image_shape

    @property
    def domains(self) -> tuple[str, ...]:
        """The pools' names, made distinct: what an episode's `pool_ids` count."""
        names = [pool.name or f"pool {p}" for p, pool in enumerate(self.pools)]
        return tuple(
            f"{name} ({names[: p + 1].count(name)})" if names.count(name) > 1 else name
            for p, name in enumerate(names)
        )

    def __repr__(self) -> str:
        pools = ", ".join(map(repr, self.pools))
        shape = f"ways={self.ways}, shots={self.shots}, queries={self.queries}"
        return f"EpisodeSampler({pools}; {shape}, seed={self.seed})"

    def shapes(self, indices: Sequence[int] | NDArray[np.int64]) -> list[tuple[int, int]]:
        """(ways, shots) of each episode."""
        if self._fixed:
            return [(self._ways[0], self._shots[0])] * len(_numbers(indices))
        draws = uniforms(self.seed, _numbers(indices), Stream.SHAPE, (2,))
        columns = []
        for column, (low, high) in enumerate((self._ways, self._shots)):
            columns.append(low + np.floor(draws[:, column] * (high - low + 1)).astype(int))
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def batch(self, indices: Sequence[int]) -> Episode:
        """The episodes of these numbers as one Episode of T = len(indices) tasks.

        Raises EpisodesError when their drawn ways or shots differ: use `batches` then.
        """
        numbers = _numbers(indices)
        shapes = self.shapes(numbers)
        if len(set(shapes)) != 1:
            raise EpisodesError(
                f"episodes of one batch must have one shape, these have (ways, shots) {sorted(set(shapes))}: "
                "use `batches`, which groups them by shape"
            )
        ways, shots = shapes[0]
        which = self._draw_pools(numbers)
        classes = np.empty((len(numbers), ways), np.int64)
        rows = np.empty((len(numbers), ways, shots + self.queries), np.int64)
        for p, table in enumerate(self._tables):
            if (mine := which == p).any():
                classes[mine] = self._draw_classes(table, self.within_group[p], numbers[mine], ways)
                rows[mine] = self._draw_rows(table, numbers[mine], classes[mine], shots + self.queries)
        support_ids, query_ids = (
            np.ascontiguousarray(part).reshape(len(numbers), -1)
            for part in (rows[:, :, :shots], rows[:, :, shots:])
        )
        support, query = self._images(numbers, which, support_ids, query_ids, ways)
        return Episode(
            support_images=support,
            support_labels=_labels(len(numbers), ways, shots),
            query_images=query,
            query_labels=_labels(len(numbers), ways, self.queries),
            ways=ways,
            index=torch.from_numpy(numbers),
            class_ids=torch.from_numpy(classes),
            support_ids=torch.from_numpy(support_ids),
            query_ids=torch.from_numpy(query_ids),
            support_views=self._views(numbers, support),
            pool_ids=torch.from_numpy(which) if len(self.pools) > 1 else None,
        )

    def _draw_pools(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [T]: which pool each episode comes from."""
        if len(self.pools) == 1:
            return np.zeros(len(numbers), np.int64)
        draws = uniforms(self.seed, numbers // self.pool_run, Stream.POOL)
        which = np.searchsorted(self._shares, draws, side="right")
        return np.minimum(which, len(self.pools) - 1)  # the shares may sum to a hair less than one

    def _draw_classes(
        self, table: Table, within_group: bool, numbers: NDArray[np.int64], ways: int
    ) -> NDArray[np.int64]:
        """int64 [T, ways]: distinct classes in the order of their labels."""
        if not within_group:
            keys = words(self.seed, numbers, Stream.CLASSES, (table.num_classes,))
            return first_of_shuffled(keys, ways)
        able = np.flatnonzero(table.group_sizes >= ways)
        share = np.cumsum(table.group_sizes[able])
        groups = able[
            np.searchsorted(share, integers(self.seed, numbers, Stream.GROUP, share[-1]), side="right")
        ]
        sizes = table.group_sizes[groups]
        keys = words(self.seed, numbers, Stream.CLASSES, (int(sizes.max()),))
        return table.members[groups[:, None], first_of_shuffled(keys, ways, sizes)]

    def _draw_rows(
        self, table: Table, numbers: NDArray[np.int64], classes: NDArray[np.int64], images: int
    ) -> NDArray[np.int64]:
        """int64 [T, ways, images]: distinct rows of each class, the support's first."""
        counts = table.counts[classes]
        keys = words(self.seed, numbers, Stream.IMAGES, (classes.shape[1], int(counts.max())))
        return table.offsets[classes][..., None] + first_of_shuffled(keys, images, counts)

    def _images(
        self,
        numbers: NDArray[np.int64],
        which: NDArray[np.int64],
        support_ids: NDArray[np.int64],
        query_ids: NDArray[np.int64],
        ways: int,
    ) -> tuple[Tensor, Tensor]:
        """Support and query images: gather, rotation, transform and augment."""
        turns = None
        if self.rotation == "per-class":
            turns = integers(self.seed, numbers, Stream.ROTATION, 4, (ways,))
        if all(transform is None for transform in self.transform):
            support, query = (self._gather(which, rows, turns) for rows in (support_ids, query_ids))
        else:
            # In one piece, so that what a transform measures on a task's images it measures once.
            joined = torch.cat([self._gather(which, rows, turns) for rows in (support_ids, query_ids)], 1)
            joined = self._changed(numbers, which, self.transform, self._transformed, joined)
            sizes = [support_ids.shape[1], query_ids.shape[1]]
            support, query = (part.contiguous() for part in joined.split(sizes, 1))
        for_support = partial(self._augmented, stream=Stream.AUGMENT_SUPPORT)
        for_query = partial(self._augmented, stream=Stream.AUGMENT_QUERY)
        support = self._changed(numbers, which, self.augment, for_support, support)
        query = self._changed(numbers, which, self.augment, for_query, query)
        return support, query

    @staticmethod
    def _changed(
        numbers: NDArray[np.int64],
        which: NDArray[np.int64],
        changes: Sequence[Change | None],
        apply: Callable[[NDArray[np.int64], Change, Tensor], Tensor],
        images: Tensor,
    ) -> Tensor:
        """Images [T, n, C, H, W], each task's through what changes its pool's; may write on them."""
        for p in np.unique(which):
            change, rows = changes[p], np.flatnonzero(which == p)
            if change is not None and len(rows) == len(which):  # often: no copies then
                return apply(numbers, change, images)
            if change is not None:
                images[rows] = apply(numbers[rows], change, images[rows])
        return images

    def _transformed(self, numbers: NDArray[np.int64], transform: Transform, images: Tensor) -> Tensor:
        return transform(images, self._uniforms(numbers, Stream.TRANSFORM, transform))

    def _gather(
        self, which: NDArray[np.int64], rows: NDArray[np.int64], turns: NDArray[np.int64] | None
    ) -> Tensor:
        """Rows [T, n] of the tasks' pools, turned by turns [T, ways] quarters: [T, n, C, H, W]."""
        kind = np.uint8 if self.dtype == torch.uint8 else np.float32
        images = empty((*rows.shape, *self.image_shape), kind)
        quarters = None if turns is None else np.repeat(turns, rows.shape[1] // turns.shape[1], 1)
        # Episodes of one pool at a time; a run of them is one piece of memory.
        ends = [*(np.flatnonzero(which[1:] != which[:-1]) + 1), len(which)]
        for first, last in itertools.pairwise([0, *ends]):
            gather(
                self.pools[which[first]].images,
                rows[first:last].reshape(-1),
                images[first:last].reshape(-1, *self.image_shape),
                None if quarters is None else quarters[first:last].reshape(-1),
            )
        return torch.from_numpy(images)

    def _views(self, numbers: NDArray[np.int64], support: Tensor) -> Tensor | None:
        """[T, V, S, C, H, W], or None when no views are asked for."""
        if self.views == 0 or self.view_augment is None:
            return None
        # [T, S, C, H, W] -> [T, V * S, C, H, W]
        copies = support[:, None].expand(-1, self.views, *support.shape[1:]).flatten(1, 2)
        views = self._augmented(numbers, self.view_augment, copies, Stream.VIEWS)
        return views.view(len(numbers), self.views, *support.shape[1:])

    def _augmented(
        self, numbers: NDArray[np.int64], augment: Augment, images: Tensor, stream: Stream
    ) -> Tensor:
        if images.shape[1] == 0:
            return images
        draws = self._uniforms(numbers, stream, augment, images.shape[1]).flatten(0, 1)
        return augment(images.flatten(0, 1), draws).view(images.shape)

    def _uniforms(
        self, numbers: NDArray[np.int64], stream: Stream, chance: Augment | Transform, *shape: int
    ) -> Tensor:
        return torch.from_numpy(uniforms(self.seed, numbers, stream, (*shape, chance.num_uniforms)))


def _labels(tasks: int, ways: int, images: int) -> Tensor:
    """int64 [tasks, ways * images]: 0, ..., 0, 1, ..., 1, ... in each row."""
    labels = np.empty((tasks, ways, images), np.int64)
    labels[:] = np.arange(ways)[:, None]
    return torch.from_numpy(labels.reshape(tasks, ways * images))


def _numbers(indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    numbers = np.asarray(indices, np.int64)
    if numbers.ndim != 1 or len(numbers) == 0 or numbers.min() < 0:
        raise EpisodesError(f"episode numbers are a non-empty list of integers from 0, got {indices!r}")
    return numbers
