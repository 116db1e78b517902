"""The outer loop: everything learns from how well the adapted networks do on their queries."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from episodes import Episode
from metafilm import norms, optimiser
from metafilm.checkpoint import load_state
from metafilm.config import Config
from metafilm.data import Source
from metafilm.errors import MetafilmError
from metafilm.evaluation import score
from metafilm.film import FilmDict
from metafilm.learner import MetaFiLM


class Diverged(MetafilmError):
    """A loss or gradient became NaN or infinite."""


def penalty(deviations: FilmDict) -> Tensor | float:
    """Mean over tasks and features of δ², so its coefficient means the same for any meta-batch and width."""
    if not deviations:
        return 0.0
    return torch.cat([value.flatten(1) for value in deviations.values()], 1).square().mean()


def sizes(deviations: FilmDict) -> dict[str, float]:
    """Root mean square of δ per parameter: what each site's gain and bias deviate by."""
    return {name: float(value.detach().square().mean().sqrt()) for name, value in deviations.items()}


def outer_loss(
    learner: MetaFiLM, episode: Episode, config: Config, steps: int | None = None
) -> tuple[Tensor, dict[str, Any]]:
    """The loss of a batch of T tasks, the mean over its tasks, and what to report of it.

    Query loss + ``outer.penalty`` × mean δ² + ``outer.auxiliary`` × cross entropy over all training classes.
    """
    outcome = learner(episode, steps=steps)
    prediction, deviations = outcome.predictions[-1], outcome.films[-1]
    query_loss = learner.head.loss(prediction, episode.query_labels).mean()
    deviation = penalty(deviations)
    loss = query_loss + config.outer.penalty * deviation
    report: dict[str, Any] = {
        "loss": float(query_loss.detach()),
        "penalty": float(deviation.detach()) if isinstance(deviation, Tensor) else 0.0,
    }
    if outcome.features is not None and learner.auxiliary is not None and outcome.feature_classes is not None:
        logits = learner.auxiliary(outcome.features).flatten(0, 1)
        auxiliary = F.cross_entropy(logits, outcome.feature_classes.flatten())
        loss = loss + config.outer.auxiliary * auxiliary
        report["auxiliary"] = float(auxiliary.detach())
    if not learner.regression:
        report["accuracy"] = sum(score(learner, prediction.detach(), episode)) / episode.tasks
    report["sizes"] = sizes(deviations)
    return loss, report


class OuterLoop:
    """One training run's state and its step.

    Args:
        learner: what learns.
        config: all settings.
        source: training episodes.
    """

    def __init__(self, learner: MetaFiLM, config: Config, source: Source) -> None:
        self.learner, self.config, self.source = learner, config, source
        self.optimiser = optimiser.build(learner, config.outer)
        self.average = (
            optimiser.MovingAverage(learner, config.outer.average) if config.outer.average else None
        )
        self.iteration = 0
        self.best: float | None = None
        self.best_iteration = 0
        self.seconds = 0.0

    def indices(self, iteration: int) -> list[int]:
        """Which episodes make the meta-batch of an iteration."""
        size = self.config.outer.meta_batch
        return list(range(iteration * size, (iteration + 1) * size))

    def step(self, episodes: list[Episode]) -> dict[str, Any]:
        """One update from a meta-batch given in chunks; returns means over its tasks.

        Raises:
            Diverged: the loss or the gradient is not finite; the weights are then still those before this
                step.
        """
        settings = self.config.outer
        learner = self.learner
        learner.train()
        learner.autocast = settings.precision == "bfloat16"
        started = self.iteration >= self.config.inner.start * settings.iterations
        steps = None if started else 0
        tasks = sum(episode.tasks for episode in episodes)
        reports: list[tuple[float, dict[str, Any]]] = []
        self.optimiser.zero_grad(set_to_none=True)
        try:
            norms.discard(learner.backbone)
            for episode in episodes:
                share = episode.tasks / tasks
                loss, report = outer_loss(learner, self.source.global_classes(episode), self.config, steps)
                if not math.isfinite(float(loss.detach())):
                    raise Diverged(
                        f"the outer loss is {float(loss.detach())} at iteration {self.iteration + 1}"
                    )
                (loss * share).backward()
                reports.append((share, report))
        finally:
            learner.autocast = False
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        limit = settings.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if not math.isfinite(norm):
            raise Diverged(f"the norm of the outer gradient is {norm} at iteration {self.iteration + 1}")
        fraction = optimiser.schedule(self.iteration, settings)
        optimiser.set_rate(self.optimiser, fraction)
        self.optimiser.step()
        norms.commit(learner.backbone)
        if self.average is not None:
            self.average.update(learner)
        self.iteration += 1
        return _merge(reports) | {"gradient_norm": norm, "learning_rate": fraction * settings.learning_rate}

    @contextmanager
    def averaged(self) -> Iterator[MetaFiLM]:
        """The learner with the averaged weights, where there are any, for the time of the context."""
        if self.average is None:
            yield self.learner
            return
        own = {name: value.detach().clone() for name, value in self.learner.state_dict().items()}
        self.learner.load_state_dict(self.average.state())
        try:
            yield self.learner
        finally:
            self.learner.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs. Episodes are pure functions of their number and need nothing."""
        return {
            "learner": self.learner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None
            if self.average is None
            else {"values": self.average.values, "updates": self.average.updates},
            "iteration": self.iteration,
            "best": self.best,
            "best_iteration": self.best_iteration,
            "seconds": self.seconds,
            "random": torch.get_rng_state(),
        }

    def load(self, state: dict[str, Any], path: str | Path) -> None:
        """Go on from a :meth:`state`."""
        load_state(self.learner, state["learner"], path)
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.values, self.average.updates = (
                state["average"]["values"],
                state["average"]["updates"],
            )
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.best, self.best_iteration = state["best"], state["best_iteration"]
        torch.set_rng_state(state["random"])


def _merge(reports: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """Weighted means of the chunks' reports."""
    merged: dict[str, Any] = {}
    for share, report in reports:
        for key, value in report.items():
            if key == "sizes":
                into = merged.setdefault(key, {})
                for name, size in value.items():
                    into[name] = into.get(name, 0.0) + share * size
            else:
                merged[key] = merged.get(key, 0.0) + share * value
    return merged
