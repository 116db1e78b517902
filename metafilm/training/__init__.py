"""The outer loop: a run from its start or its checkpoint to its end."""

from metafilm.training.outer_gradient import Diverged
from metafilm.training.outer_loop import OuterLoop
from metafilm.training.run import train

__all__ = ["Diverged", "OuterLoop", "train"]
