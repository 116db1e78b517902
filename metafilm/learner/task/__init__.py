"""One adapted task, its file, and its plain network."""

from metafilm.learner.task.task import Task, settled

__all__ = ["Task", "settled"]
