"""From what tells of a task to its deviations."""

from metafilm.conditioning.task_encoder import TaskEncoder

__all__ = ["TaskEncoder"]
