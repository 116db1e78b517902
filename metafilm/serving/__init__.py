"""Many adapted tasks served by one network."""

from metafilm.serving.bank import TaskBank

__all__ = ["TaskBank"]
