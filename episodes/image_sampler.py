"""What the samplers of images share: an episode's rows are drawn, and put together with their images."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.sampling.drawing import (
    Table,
    draw_classes,
    draw_rows,
    draw_shapes,
    episode_numbers,
    labels,
    the_one_shape,
)
from episodes.sampling.feasibility import Range, as_count, as_range
from episodes.sampling.prefetch import BaseSampler
from episodes.transforms.drawn import support_views
from episodes.transforms.protocols import Augment


class ImageSampler(BaseSampler):
    """Episodes of classes that stand in tables, each episode of one table.

    A sampler sets `_tables`, and for each whether an episode has classes of one group (`_within`), and says
    which table an episode is of and what its images are. Arguments as in `episodes.EpisodeSampler`.
    """

    _tables: Sequence[Table]
    _within: Sequence[bool]

    def __init__(
        self,
        ways: Range,
        shots: Range,
        queries: int,
        seed: int,
        views: int,
        view_augment: Augment | None,
        dtype: torch.dtype,
    ) -> None:
        self.ways, self.shots, self.seed = ways, shots, int(seed)
        self.queries = as_count("queries", queries)
        self.views, self.view_augment, self.dtype = as_count("views", views), view_augment, dtype
        self._ways, self._shots = as_range("ways", ways), as_range("shots", shots)
        if (self.views > 0) != (self.view_augment is not None):
            raise EpisodesError(
                f"views={self.views} and view_augment={self.view_augment!r}: give both (views >= 1) or "
                "neither"
            )
        if dtype not in (torch.float32, torch.uint8):
            raise EpisodesError(f"dtype is {dtype}: choose torch.float32 or torch.uint8")

    @abstractmethod
    def _which(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [T]: the table of each episode."""

    @abstractmethod
    def _images(
        self,
        numbers: NDArray[np.int64],
        which: NDArray[np.int64],
        support_ids: NDArray[np.int64],
        query_ids: NDArray[np.int64],
        ways: int,
    ) -> tuple[Tensor, Tensor]:
        """Support and query images [T, n, C, H, W] of rows [T, n]."""

    @property
    def _tells_which(self) -> bool:
        """Whether episodes have `pool_ids`."""
        return True

    def shapes(self, indices: Sequence[int] | NDArray[np.int64]) -> list[tuple[int, int]]:
        """(ways, shots) of each episode."""
        return draw_shapes(self.seed, episode_numbers(indices), self._ways, self._shots)

    def batch(self, indices: Sequence[int]) -> Episode:
        """The episodes of these numbers as one Episode of T = len(indices) tasks.

        Raises EpisodesError when their drawn ways or shots differ: use `batches` then.
        """
        numbers = episode_numbers(indices)
        ways, shots = the_one_shape(self.shapes(numbers))
        which = self._which(numbers)
        classes = np.empty((len(numbers), ways), np.int64)
        rows = np.empty((len(numbers), ways, shots + self.queries), np.int64)
        for t, table in enumerate(self._tables):
            if (mine := which == t).any():
                of = (self.seed, numbers[mine], table)
                drawn = draw_classes(*of, ways, self._within[t])
                classes[mine] = drawn if table.numbers is None else table.numbers[drawn]
                rows[mine] = draw_rows(*of, drawn, shots + self.queries)
        support_ids, query_ids = (
            np.ascontiguousarray(part).reshape(len(numbers), -1)
            for part in (rows[:, :, :shots], rows[:, :, shots:])
        )
        support, query = self._images(numbers, which, support_ids, query_ids, ways)
        return Episode(
            support_images=support,
            support_labels=labels(len(numbers), ways, shots),
            query_images=query,
            query_labels=labels(len(numbers), ways, self.queries),
            ways=ways,
            index=torch.from_numpy(numbers),
            class_ids=torch.from_numpy(classes),
            support_ids=torch.from_numpy(support_ids),
            query_ids=torch.from_numpy(query_ids),
            support_views=support_views(support, self.views, self.view_augment, self.seed, numbers),
            pool_ids=torch.from_numpy(which) if self._tells_which else None,
        )
