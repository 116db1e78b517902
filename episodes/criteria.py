"""CriterionSampler: episodes that draw by which attribute of its images a pool is sorted."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.counter import Stream
from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.pool import ClassPool
from episodes.sampling.drawing import (
    Table,
    cumulated,
    draw_classes,
    draw_rows,
    draw_shapes,
    draw_which,
    episode_numbers,
    labels,
    the_one_shape,
)
from episodes.sampling.feasibility import Range, as_range, check_criteria
from episodes.sampling.prefetch import BaseSampler
from episodes.transforms.drawn import augmented, support_views
from episodes.transforms.pixels import empty, gather
from episodes.transforms.protocols import Augment


class CriterionSampler(BaseSampler):
    """Draws few-shot episodes whose classes are the values of one attribute, another in each episode.

    Flexible few-shot learning (Ren et al., "Flexible few-shot learning of contextual similarity", 2020,
    arXiv:2012.05895): the same images are sorted by ink today and by character tomorrow. An episode draws
    its criterion, then `ways` of that attribute's values, then images of each value, whatever their other
    attributes: nothing but the support's labels tells what the criterion is. An episode's `pool_ids` count
    `domains`, the criteria's names; its `class_ids` count the values of the criterion's attribute.

    pool: a ClassPool with attributes. ways, shots: a number, or an inclusive range drawn per episode.
    queries: query images per value. criteria: names of the attributes to draw, all by default. weights: how
    often each is drawn, equally by default. An attribute with groups gives an episode values of one group,
    drawn in proportion to how many values the group has. Values that too few images have for the most shots
    and the queries are never drawn. augment: one draw per image of support and query. views: V copies of
    each support image through view_augment. Neither may change what an episode is sorted by:
    `Attribute.spoiled_by` names what would (a shift does away with place), and nothing here checks it. dtype:
    torch.float32, or torch.uint8 as in `EpisodeSampler`.

    Episode i depends on (seed, i) and these settings alone, not on the batch it is in.

    Raises EpisodesError for a criterion that the pool lacks or that has too few values with images enough.
    """

    def __init__(
        self,
        pool: ClassPool,
        ways: Range,
        shots: Range,
        queries: int,
        seed: int = 0,
        *,
        criteria: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        augment: Augment | None = None,
        views: int = 0,
        view_augment: Augment | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.pool, self.ways, self.shots = pool, ways, shots
        self.queries, self.seed = int(queries), int(seed)
        self.augment, self.views, self.view_augment = augment, int(views), view_augment
        self._ways, self._shots = as_range("ways", ways), as_range("shots", shots)
        if self.views < 0 or (self.views > 0) != (self.view_augment is not None):
            raise EpisodesError(
                f"views={self.views} and view_augment={self.view_augment!r}: give both (views >= 1) or "
                "neither"
            )
        if dtype not in (torch.float32, torch.uint8):
            raise EpisodesError(f"dtype is {dtype}: choose torch.float32 or torch.uint8")
        if dtype == torch.uint8 and (augment is not None or self.views):
            raise EpisodesError("dtype torch.uint8 with augment or views: these need torch.float32")
        self.dtype = dtype
        least = self._shots[1] + self.queries
        attributes = check_criteria(pool, criteria, self._ways[1], self._shots[1], self.queries, weights)
        self.criteria = tuple(attribute.name for attribute in attributes)
        self._shares = cumulated(weights, len(self.criteria))
        self._grouped = [attribute.groups is not None for attribute in attributes]
        self._tables = [Table.of_attribute(attribute, least) for attribute in attributes]

    @property
    def domains(self) -> tuple[str, ...]:
        """What an episode's `pool_ids` count: the criteria's names."""
        return self.criteria

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.pool.image_shape

    def __repr__(self) -> str:
        shape = f"ways={self.ways}, shots={self.shots}, queries={self.queries}"
        return f"CriterionSampler({self.pool!r} by {', '.join(self.criteria)}; {shape}, seed={self.seed})"

    def shapes(self, indices: Sequence[int] | NDArray[np.int64]) -> list[tuple[int, int]]:
        """(ways, shots) of each episode."""
        return draw_shapes(self.seed, episode_numbers(indices), self._ways, self._shots)

    def batch(self, indices: Sequence[int]) -> Episode:
        """The episodes of these numbers as one Episode of T = len(indices) tasks.

        Raises EpisodesError when their drawn ways or shots differ: use `batches` then.
        """
        numbers = episode_numbers(indices)
        ways, shots = the_one_shape(self.shapes(numbers))
        which = draw_which(self.seed, numbers, Stream.CRITERION, self._shares)
        values = np.empty((len(numbers), ways), np.int64)
        rows = np.empty((len(numbers), ways, shots + self.queries), np.int64)
        for c, table in enumerate(self._tables):
            if (mine := which == c).any():
                of = (self.seed, numbers[mine], table)
                drawn = draw_classes(*of, ways, self._grouped[c])
                values[mine] = drawn if table.numbers is None else table.numbers[drawn]
                rows[mine] = draw_rows(*of, drawn, shots + self.queries)
        support_ids, query_ids = (
            np.ascontiguousarray(part).reshape(len(numbers), -1)
            for part in (rows[:, :, :shots], rows[:, :, shots:])
        )
        support = self._images(numbers, Stream.AUGMENT_SUPPORT, support_ids)
        return Episode(
            support_images=support,
            support_labels=labels(len(numbers), ways, shots),
            query_images=self._images(numbers, Stream.AUGMENT_QUERY, query_ids),
            query_labels=labels(len(numbers), ways, self.queries),
            ways=ways,
            index=torch.from_numpy(numbers),
            class_ids=torch.from_numpy(values),
            support_ids=torch.from_numpy(support_ids),
            query_ids=torch.from_numpy(query_ids),
            support_views=support_views(support, self.views, self.view_augment, self.seed, numbers),
            pool_ids=torch.from_numpy(which),
        )

    def _images(self, numbers: NDArray[np.int64], stream: Stream, rows: NDArray[np.int64]) -> Tensor:
        """Rows [T, n] of the pool, augmented where asked for: [T, n, C, H, W]."""
        images = empty(
            (*rows.shape, *self.image_shape), np.uint8 if self.dtype == torch.uint8 else np.float32
        )
        gather(self.pool.images, rows.reshape(-1), images.reshape(-1, *self.image_shape))
        return augmented(torch.from_numpy(images), self.augment, self.seed, numbers, stream)
