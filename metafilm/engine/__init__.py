"""Exact and fast arithmetic: convolutions, what lies between two of them, kernels in C, memory, processes.

Nothing here knows of tasks' deviations beyond gains and shifts, or of learners.
"""

from metafilm.engine.convolution import Conv2d, conv2d
from metafilm.engine.distributed import Group, WorkerLost
from metafilm.engine.memory import keep_freed_memory

__all__ = ["Conv2d", "Group", "WorkerLost", "conv2d", "keep_freed_memory"]
