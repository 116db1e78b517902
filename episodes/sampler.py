"""EpisodeSampler: episode i of a pool is a pure function of (seed, i)."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.counter import Stream, integers
from episodes.errors import EpisodesError
from episodes.image_sampler import ImageSampler
from episodes.pool import ClassPool, require_square
from episodes.sampling.drawing import Table, cumulated, draw_which
from episodes.sampling.feasibility import Range, check_pools, per_pool
from episodes.transforms.drawn import augmented, draws
from episodes.transforms.pixels import empty, gather
from episodes.transforms.protocols import Augment, Transform

Change = TypeVar("Change", bound=Augment | Transform)


class EpisodeSampler(ImageSampler):
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
        super().__init__(ways, shots, queries, seed, views, view_augment, dtype)
        count = len(self.pools)
        self.within_group = per_pool("within_group", within_group, count)
        self.augment = per_pool("augment", augment, count)
        self.transform = per_pool("transform", transform, count)
        self.rotation, self.pool_run = rotation, int(pool_run)
        if self.rotation not in ("none", "per-class"):
            raise EpisodesError(f'rotation is {self.rotation!r}: choose "none" or "per-class"')
        if self.pool_run < 1:
            raise EpisodesError(f"pool_run={pool_run}: it must be at least 1")
        changes = [*self.transform, *self.augment]
        if dtype == torch.uint8 and (self.views or any(change is not None for change in changes)):
            raise EpisodesError(
                "dtype torch.uint8 with a transform, augment or views: these need torch.float32"
            )
        check_pools(self.pools, self._ways[1], self._shots[1], self.queries, self.within_group, weights)
        if self.rotation == "per-class":
            require_square(self.image_shape)
        self._shares = cumulated(weights, len(self.pools))
        self._tables = [Table.of_pool(pool) for pool in self.pools]
        self._within = self.within_group

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

    def _which(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return draw_which(self.seed, numbers // self.pool_run, Stream.POOL, self._shares)

    @property
    def _tells_which(self) -> bool:
        return len(self.pools) > 1

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

    def _transformed(self, numbers: NDArray[np.int64], transform: Transform, images: Tensor) -> Tensor:
        return transform(images, draws(self.seed, numbers, Stream.TRANSFORM, transform))

    def _augmented(
        self, numbers: NDArray[np.int64], augment: Augment, images: Tensor, stream: Stream
    ) -> Tensor:
        return augmented(images, augment, self.seed, numbers, stream)
