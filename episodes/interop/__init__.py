"""From any torch `Dataset`, to its `DataLoader`; to and from learn2learn's tasksets, importing none of it."""

from episodes.interop.datasets import from_dataset
from episodes.interop.loaders import to_dataloader
from episodes.interop.tasksets import from_taskset, to_taskset

__all__ = ["from_dataset", "from_taskset", "to_dataloader", "to_taskset"]
