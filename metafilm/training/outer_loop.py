"""The outer loop: everything learns from how well the adapted networks do on their queries."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from episodes import Episode
from metafilm import norms
from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.engine.distributed import Group
from metafilm.errors import MetafilmError, NotFinite, RunError, first_line
from metafilm.heads.base import SINGULAR
from metafilm.learner.learner import MetaFiLM
from metafilm.storage.models import load_state
from metafilm.training import optimiser
from metafilm.training.chunks import Chunks
from metafilm.training.compiled import CompiledGradient
from metafilm.training.noise import FilmNoise
from metafilm.training.outer_gradient import Diverged, accumulate, merge
from metafilm.training.plain.joint import PlainImages
from metafilm.training.randomness import OUTER, drawn


class OuterLoop:
    """One training run's state and its step.

    Args:
        learner: what learns.
        config: all settings.
        source: training episodes.
        group: the processes that share each meta-batch; None: this one alone.

    Attributes:
        stopping: set it to end the run after the next step; after a step it says whether any process did.
    """

    def __init__(self, learner: MetaFiLM, config: Config, source: Source, group: Group | None = None) -> None:
        self.learner, self.config, self.source = learner, config, source
        self.group = group or Group()
        self.stopping = False
        if config.outer.meta_batch < self.group.size:
            raise MetafilmError(
                f"a meta-batch of {config.outer.meta_batch} can't be shared by {self.group.size} processes; "
                f"raise --outer.meta-batch, or start fewer"
            )
        self.plain = PlainImages(learner, config, source) if config.outer.plain else None
        beside = None if self.plain is None else self.plain.classifier
        self.optimiser = optimiser.build(learner, config.outer, beside)
        self.average = (
            optimiser.MovingAverage(learner, config.outer.average) if config.outer.average else None
        )
        self.iteration = 0
        self.best: float | None = None
        self.best_iteration = 0
        self.seconds = 0.0
        self.chunks = Chunks.of(config.outer)
        strength = config.outer.film_noise
        self.noise = FilmNoise(strength, config.seed) if strength else None
        self.compiled = CompiledGradient(learner, config) if config.outer.compile else None

    def indices(self, iteration: int) -> list[int]:
        """Which episodes of the meta-batch of an iteration are this process's."""
        size = self.config.outer.meta_batch
        return self.group.share(range(iteration * size, (iteration + 1) * size))

    def step(self, episodes: list[Episode]) -> dict[str, Any]:
        """One update from a meta-batch given in chunks; returns means over its tasks.

        Raises:
            Diverged: the loss or the gradient is not finite; the weights are then still those before this
                step.
        """
        settings = self.config.outer
        learner = self.learner
        self.optimiser.zero_grad(set_to_none=True)
        norms.discard(learner.backbone)
        failed: Diverged | None = None
        report: dict[str, Any] = {}
        try:
            with drawn(self.config.seed, self.indices(self.iteration)[0], OUTER, learner.mean.device):
                report = self.gradient(episodes) | self._plain_gradient()
        except Diverged as error:
            failed = error
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        flags = self.group.sum_gradients(parameters, [float(failed is not None), float(self.stopping)])
        if flags[0]:
            raise failed or Diverged(f"the outer loss is not finite at iteration {self.iteration + 1}")
        self.stopping = flags[1] > 0
        if self.group.size > 1:
            report = _summed(report, self.group)
            norms.share(learner.backbone, self.group.sum)
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
        return report | {"gradient_norm": norm, "learning_rate": fraction * settings.learning_rate}

    def gradient(self, episodes: list[Episode], query_chunk: int | None = None) -> dict[str, Any]:
        """Add the meta-batch's outer gradient to the parameters'; returns means over its tasks.

        Args:
            query_chunk: tasks whose queries go together; None: as ``chunks`` says.

        Raises:
            Diverged: a loss is not finite.
        """
        settings, learner = self.config.outer, self.learner
        learner.train()
        steps = None if self.iteration >= self.config.inner.start * settings.iterations else 0
        tasks = sum(episode.tasks for episode in episodes)
        if self.group.size > 1:
            tasks = settings.meta_batch
        reports: list[tuple[float, dict[str, Any]]] = []
        try:
            with learner.in_precision(settings.precision):
                for episode in episodes:
                    share = episode.tasks / tasks
                    episode = self.source.global_classes(episode.to(learner.mean.device))
                    if self.compiled is not None:
                        report = self.compiled(episode, steps=steps, share=share)
                    else:
                        report = accumulate(
                            learner,
                            episode,
                            self.config,
                            steps=steps,
                            share=share,
                            query_chunk=query_chunk or self.chunks.queries,
                            noise=self.noise,
                        )
                    reports.append((share, report))
        except Diverged as error:
            raise Diverged(f"{error} at iteration {self.iteration + 1}") from error
        except (SINGULAR, NotFinite) as error:  # of a head that solves for its weights
            raise Diverged(
                f"the head's equations have no solution ({first_line(error)}) at iteration "
                f"{self.iteration + 1}"
            ) from error
        return merge(reports)

    def _plain_gradient(self) -> dict[str, float]:
        """Add the gradient of the plain images, if there are any; of several processes the leader alone takes
        them, since half a batch has other statistics than the whole."""
        if self.plain is None:
            return {}
        if not self.group.leads:
            return {"plain_loss": 0.0, "plain_accuracy": 0.0}
        try:
            return self.plain.gradient(self.iteration)
        except Diverged as error:
            raise Diverged(f"{error}, of the plain images at iteration {self.iteration + 1}") from error

    def close(self) -> None:
        """End what makes batches ahead."""
        if self.plain is not None:
            self.plain.close()

    @contextmanager
    def averaged(self) -> Iterator[MetaFiLM]:
        """The learner with the averaged weights, where there are any, for the time of the context."""
        if self.average is None:
            yield self.learner
            return
        with self.average.standing_in(self.learner):
            yield self.learner

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs. Episodes and random numbers are pure functions of the iteration and
        need nothing."""
        plain = {} if self.plain is None else {"plain": self.plain.classifier.state_dict()}
        return {
            **plain,
            "learner": self.learner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.saved(),
            "iteration": self.iteration,
            "best": self.best,
            "best_iteration": self.best_iteration,
            "seconds": self.seconds,
            "chunks": list(self.chunks),
        }

    def load(self, state: dict[str, Any], path: str | Path) -> None:
        """Go on from a :meth:`state`, which may lie on another device.

        Raises:
            CheckpointError: it does not fit the learner.
            RunError: it does not fit the optimiser or the average; ``path`` names it.
        """
        load_state(self.learner, state["learner"], path)
        try:
            if self.plain is not None:
                if "plain" not in state:
                    raise ValueError("the classifier of the plain images is missing")
                self.plain.classifier.load_state_dict(state["plain"])
            optimiser.load(self.optimiser, state["optimiser"])
            if self.average is not None:
                self.average.load(state["average"])
        except (ValueError, RuntimeError) as error:
            raise RunError(
                f"{path} does not fit this run ({first_line(error)}); delete it to start the run anew"
            ) from error
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.best, self.best_iteration = state["best"], state["best_iteration"]
        # other chunks add up in another order, so a resumed run keeps those it was begun with
        self.chunks = Chunks(*state["chunks"])


def _summed(report: dict[str, Any], group: Group) -> dict[str, Any]:
    """Means over a meta-batch from each process's part of them; of ``sizes`` the root of the mean square."""
    flat = {key: value for key, value in report.items() if key != "sizes"}
    values = [*flat.values(), *(size**2 for size in report["sizes"].values())]
    total = group.sum(torch.tensor(values, dtype=torch.float64, device=group.device)).tolist()
    sizes = dict(zip(report["sizes"], map(math.sqrt, total[len(flat) :]), strict=True))
    return dict(zip(flat, total, strict=False)) | {"sizes": sizes}
