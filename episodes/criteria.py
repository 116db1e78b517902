"""CriterionSampler: episodes that draw by which attribute of its images a pool is sorted."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.counter import Stream
from episodes.errors import EpisodesError
from episodes.image_sampler import ImageSampler
from episodes.pool import ClassPool
from episodes.sampling.drawing import Table, cumulated, draw_which
from episodes.sampling.feasibility import Range, check_criteria
from episodes.transforms.drawn import augmented
from episodes.transforms.pixels import empty, gather
from episodes.transforms.protocols import Augment


class CriterionSampler(ImageSampler):
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
        super().__init__(ways, shots, queries, seed, views, view_augment, dtype)
        self.pool, self.augment = pool, augment
        if dtype == torch.uint8 and (augment is not None or self.views):
            raise EpisodesError("dtype torch.uint8 with augment or views: these need torch.float32")
        least = self._shots[1] + self.queries
        attributes = check_criteria(pool, criteria, self._ways[1], self._shots[1], self.queries, weights)
        self.criteria = tuple(attribute.name for attribute in attributes)
        self._shares = cumulated(weights, len(self.criteria))
        self._within = [attribute.groups is not None for attribute in attributes]
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

    def _which(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return draw_which(self.seed, numbers, Stream.CRITERION, self._shares)

    def _images(
        self,
        numbers: NDArray[np.int64],
        which: NDArray[np.int64],
        support_ids: NDArray[np.int64],
        query_ids: NDArray[np.int64],
        ways: int,
    ) -> tuple[Tensor, Tensor]:
        """Rows of the pool, augmented where asked for."""
        return (
            self._gathered(numbers, Stream.AUGMENT_SUPPORT, support_ids),
            self._gathered(numbers, Stream.AUGMENT_QUERY, query_ids),
        )

    def _gathered(self, numbers: NDArray[np.int64], stream: Stream, rows: NDArray[np.int64]) -> Tensor:
        images = empty(
            (*rows.shape, *self.image_shape), np.uint8 if self.dtype == torch.uint8 else np.float32
        )
        gather(self.pool.images, rows.reshape(-1), images.reshape(-1, *self.image_shape))
        return augmented(torch.from_numpy(images), self.augment, self.seed, numbers, stream)
