"""Attribute: one of several properties by which a pool's images may be told apart."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from episodes.errors import EpisodesError


@dataclass(frozen=True)
class Attribute:
    """A value for each image of a pool: its ink, its place, who drew it.

    groups: where values are only comparable within a group (two drawers of one alphabet, not of two), the
    group of each; an episode by this attribute then takes its values from one group. spoiled_by: names of
    augmentations (:data:`episodes.transforms.augment.BY_NAME`) that would change an image's value.

    Raises EpisodesError when the parts don't fit.
    """

    name: str
    values: Tensor  # [N] int64 in [0, len(value_names))
    value_names: tuple[str, ...]
    groups: Tensor | None = None  # [values] int64, from 0
    spoiled_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.value_names)
        if self.values.dtype != torch.int64 or self.values.ndim != 1 or len(self.values) == 0:
            raise EpisodesError(
                f"attribute {self.name!r} needs one value per image, int64 [N], got {self.values.dtype} "
                f"{list(self.values.shape)}"
            )
        if len(set(self.value_names)) != count:
            raise EpisodesError(f"attribute {self.name!r}: value names must be distinct")
        if int(self.values.min()) < 0 or int(self.values.max()) >= count:
            raise EpisodesError(
                f"attribute {self.name!r} has values {int(self.values.min())} to {int(self.values.max())}, "
                f"but {count} names: values are 0 to {count - 1}"
            )
        if self.groups is not None and (
            self.groups.dtype != torch.int64 or tuple(self.groups.shape) != (count,) or self.groups.min() < 0
        ):
            raise EpisodesError(
                f"attribute {self.name!r}: groups are int64 [{count}] from 0, one per value, got "
                f"{self.groups.dtype} {list(self.groups.shape)}"
            )

    @property
    def counts(self) -> Tensor:
        """Images per value: int64 [values]."""
        return torch.bincount(self.values, minlength=len(self.value_names))

    def of_rows(self, rows: Tensor) -> "Attribute":
        """The attribute of some of the images, rows int64 [n], in this order; values that none of them has
        are left out."""
        values = self.values[rows]
        present, numbers = values.unique(return_inverse=True)
        return replace(
            self,
            values=numbers,
            value_names=tuple(self.value_names[v] for v in present.tolist()),
            groups=None if self.groups is None else self.groups[present],
        )
