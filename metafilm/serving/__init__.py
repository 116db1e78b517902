"""Adapted tasks at work: many of them in one network, or one as a file that runs without metafilm."""

from metafilm.serving.bank import TaskBank
from metafilm.serving.exporting import Exported, export, require_exportable

__all__ = ["Exported", "TaskBank", "export", "require_exportable"]
