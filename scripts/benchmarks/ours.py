"""metafilm as the benchmark runs it: the one place that knows its settings and entry points."""

from __future__ import annotations

from typing import Any

import torch
import yaml

from episodes import Episode
from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.evaluation import TOGETHER, staged
from metafilm.learner.build import build_learner
from metafilm.learner.learner import MetaFiLM
from metafilm.training import chunks
from metafilm.training.outer_loop import OuterLoop

from .rounds import System
from .tasks import Setting, episode

STEP_SIZE = 0.125  # exact in float32, so that the float64 check sees the same number on both sides
overrides: dict[str, dict[str, Any]] = {}
"""Settings from the command line, e.g. {"outer": {"task_chunk": 4}}."""


def override(assignment: str) -> None:
    """Take ``outer.task_chunk=4`` into every configuration made from now on."""
    name, _, value = assignment.partition("=")
    section, _, key = name.partition(".")
    overrides.setdefault(section, {})[key] = yaml.safe_load(value)


def config(setting: Setting, precision: str = "float32", norm: str = "running") -> Config:
    """FiLM deviations from zero, K inner steps through them, second order, linear head: CAVIA's method.

    The penalty on the deviations is off, since no peer has one.
    """
    settings: dict[str, dict[str, Any]] = {
        "episodes": {"ways": setting.ways, "shots": setting.shots, "queries": setting.queries},
        "backbone": {"width": setting.width, "norm": norm},
        "encoder": {"enabled": False},
        "head": {"name": "linear"},
        "inner": {"steps": setting.steps, "step_size": STEP_SIZE, "first_order": False, "views": 0},
        "outer": {"meta_batch": setting.tasks, "precision": precision, "penalty": 0.0},
    }
    for section, values in overrides.items():
        settings[section] = settings.get(section, {}) | values
    return Config.from_dict(settings)


def learner(setting: Setting, precision: str = "float32", norm: str = "running") -> MetaFiLM:
    """As `metafilm train` builds it."""
    made = build_learner(config(setting, precision, norm), image_shape=setting.image_shape)
    return made.to(memory_format=torch.channels_last)


def outer_loop(setting: Setting, precision: str) -> OuterLoop:
    """One training run."""
    settings = config(setting, precision)
    return OuterLoop(learner(setting, precision), settings, Source(None, ()))  # type: ignore[arg-type]


def cut(tasks: Episode, size: int) -> list[Episode]:
    """A meta-batch in chunks of at most ``size`` tasks."""
    parts = [tasks.select(t) for t in range(tasks.tasks)]
    return [Episode.cat(parts[i : i + size]) for i in range(0, len(parts), size)]


def chunked(loop: OuterLoop, tasks: Episode) -> list[Episode]:
    """The meta-batch in the chunks that `metafilm train` would cut it into, measured where it measures."""
    loop.chunks = chunks.measure(
        loop.learner, loop.config.outer, lambda size: cut(tasks, size), loop.gradient
    )
    return cut(tasks, loop.chunks.tasks)


def training(setting: Setting, precision: str) -> System:
    """A whole meta-batch through `OuterLoop.step`, the optimiser's step included."""
    loop = outer_loop(setting, precision)
    batch = chunked(loop, episode(setting))
    note = f"FiLM alone is adapted; gradient clipping and report included; {loop.chunks}{_said()}"
    return System("metafilm", lambda: loop.step(batch), setting.tasks, precision, note)


def evaluation(setting: Setting, precision: str = "float32") -> System:
    """Adapt and predict as `evaluate` does, 8 tasks adapted to together. Batch statistics (norm
    `transductive`) as in every peer."""
    tasks = episode(setting)
    made = learner(setting, norm="transductive").eval()
    made.autocast = precision == "bfloat16"
    parts = cut(tasks, TOGETHER)

    def run() -> None:
        with torch.no_grad():
            for chunk in parts:
                for part, _, predictions in staged(made, chunk, steps=setting.steps):
                    made.head.measure(predictions[-1], part.query_labels).tolist()

    note = f"FiLM alone is adapted; statistics of each task's own images, as in the peers{_said()}"
    return System("metafilm", run, setting.tasks, precision, note)


def _said() -> str:
    """What the command line changed."""
    said = ", ".join(f"{s}.{k}={v}" for s, values in overrides.items() for k, v in values.items())
    return f"; with {said}" if said else ""
