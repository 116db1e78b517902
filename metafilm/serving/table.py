"""A table of tensors, a row a task, that grows and reuses the rows of tasks that went."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Table:
    """Named tensors ``[capacity, ...]`` of one row a task; freed rows are used again."""

    def __init__(self, tensors: Mapping[str, Tensor], used: int = 0) -> None:
        self.tensors, self.used, self.free = dict(tensors), used, list[int]()

    def put(self, values: Mapping[str, Tensor]) -> int:
        """Keep values, one of each name; returns their row."""
        if not self.free and all(self.used == len(tensor) for tensor in self.tensors.values()):
            # by a quarter: still a constant number of copies a row, and little room that nobody uses
            room = max(8, self.used // 4)
            self.tensors = {
                name: torch.cat((old, old.new_zeros(room, *old.shape[1:])))
                for name, old in self.tensors.items()
            }
        if self.free:
            row = self.free.pop()
        else:
            row, self.used = self.used, self.used + 1
        for name, tensor in self.tensors.items():
            tensor[row] = values[name].detach()
        return row

    def get(self, row: int) -> dict[str, Tensor]:
        """A copy of a row."""
        return {name: tensor[row].clone() for name, tensor in self.tensors.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, the free ones too."""
        return sum(tensor.nbytes for tensor in self.tensors.values())
