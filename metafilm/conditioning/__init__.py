"""From what tells of a task to its deviations."""

from metafilm.conditioning.decoders import DECODERS
from metafilm.conditioning.task_encoder import POOLINGS, TaskEncoder

__all__ = ["DECODERS", "POOLINGS", "TaskEncoder"]
