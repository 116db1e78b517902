"""From any torch `Dataset`, and to and from learn2learn's tasksets, importing neither library."""

from episodes.interop.datasets import from_dataset
from episodes.interop.tasksets import from_taskset, to_taskset

__all__ = ["from_dataset", "from_taskset", "to_taskset"]
