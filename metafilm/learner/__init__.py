"""The learner: a shared network, task encoder, inner loop and head in one; and the tasks it adapts to."""

from metafilm.learner.build import build_learner, load_learner
from metafilm.learner.gate import Gate
from metafilm.learner.inner_loop import InnerLoop
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.outcome import Adaptation, Outcome
from metafilm.learner.overrides import overridden
from metafilm.learner.task import Task

__all__ = [
    "Adaptation",
    "Gate",
    "InnerLoop",
    "MetaFiLM",
    "Outcome",
    "Task",
    "build_learner",
    "load_learner",
    "overridden",
]
