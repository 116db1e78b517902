"""Loops for learn2learn's systems like those of its own examples, with the optimiser that metafilm's systems
have."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from episodes import Episode
from episodes.progress import Progress
from metafilm.config.sources import Source
from metafilm.storage.atomic import atomic_write
from metafilm.training.optimiser import MovingAverage, warm_cosine
from metafilm.training.outer_gradient import finite

from . import plans
from .peers import SYSTEMS
from .works import Work

SAVE_EVERY = 60.0  # seconds
AVERAGE = 0.999  # decay of the weights' moving average, as of the systems in .ours


class Training:
    """A peer's training, which can be stopped and goes on.

    Args:
        work, name: of ``WORKS`` and ``SYSTEMS``.
        source: of the training tasks, which say the images' mean and deviation too.
        iterations: meta-batches; the learning rate warms up and follows a cosine to 0 over them.
    """

    def __init__(self, work: Work, name: str, source: Source, iterations: int) -> None:
        self.work, self.source, self.iterations = work, source, iterations
        self.peer = SYSTEMS[name].make(work)
        mean, std = (torch.tensor(source.build[key]).view(-1, 1, 1) for key in ("mean", "std"))
        self.mean, self.std = mean.float(), std.float()
        self.optimiser = torch.optim.AdamW(self.peer.network.parameters(), weight_decay=5e-4)
        self.average = MovingAverage(self.peer.network, AVERAGE)
        self.iteration, self.seconds = 0, 0.0
        self.best, self.best_state = -1.0, self._weights()
        self.curve: list[tuple[float, float]] = []

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.peer.network.state_dict().items()}

    def prepared(self, episode: Episode) -> list[Episode]:
        """Task by task, images normalised, in the peer's layout."""
        layout = torch.channels_last if self.peer.channels_last else torch.contiguous_format

        def ready(images: Tensor) -> Tensor:
            images = images.float() / 255 if images.dtype == torch.uint8 else images
            normalised = ((images - self.mean) / self.std)[0]
            return normalised.contiguous(memory_format=layout).unsqueeze(0)

        tasks = [episode.select(t) for t in range(episode.tasks)]
        return [
            Episode(
                ready(task.support_images),
                task.support_labels,
                ready(task.query_images),
                task.query_labels,
                task.ways,
                task.index,
            )
            for task in tasks
        ]

    def ahead(self, first: int = 0) -> Iterator[list[Episode]]:
        """The meta-batches from this one on, task by task, built in a background thread as metafilm's are."""
        size = self.work.meta_batch
        return self.source.sampler.prefetch((range(i * size, (i + 1) * size) for i in count(first)), 1)

    def step(self, episodes: list[Episode]) -> None:
        """One meta-batch and the optimiser's step. Raises Diverged: a loss is not finite."""
        self.optimiser.zero_grad()
        for episode in episodes:
            for task in self.prepared(episode):
                loss = F.cross_entropy(self.peer.logits(task, True), task.query_labels[0])
                (finite(loss) / self.work.meta_batch).backward()
        nn.utils.clip_grad_norm_(self.peer.network.parameters(), 10.0)
        warmup = min(100, max(self.iterations // 10, 1))
        for group in self.optimiser.param_groups:
            group["lr"] = self.work.learning_rate * warm_cosine(self.iteration, self.iterations, warmup)
        self.optimiser.step()
        self.average.update(self.peer.network)
        self.iteration += 1

    def scores(self, source: Source, tasks: int) -> list[float]:
        """Percent of the queries right, of each task."""
        found = []
        for number in range(tasks):
            (task,) = self.prepared(source.sampler.batch([number]))
            right = self.peer.logits(task, False).argmax(-1) == task.query_labels[0]
            found.append(100 * float(right.double().mean()))
        return found

    def run(self, folder: Path, validation: Source, validations: int) -> None:
        """To the end, keeping the averaged weights that are best on validation tasks."""
        every = max(self.iterations // validations, 1)
        file = folder / "checkpoint.pt"
        saved = time.perf_counter()
        with (
            Progress(folder.name, total=self.iterations) as bar,
            closing(self.ahead(self.iteration)) as ahead,  # type: ignore[type-var]
        ):
            bar.advance(self.iteration)
            begin = time.perf_counter()
            while self.iteration < self.iterations:
                self.step(next(ahead))
                self.seconds += time.perf_counter() - begin
                if self.iteration % every == 0 or self.iteration == self.iterations:
                    self.validate(validation)
                begin = time.perf_counter()  # a checkpoint counts, as metafilm's does
                if begin - saved > SAVE_EVERY or self.iteration == self.iterations:
                    self.save(file)
                    saved = time.perf_counter()
                bar.advance(1)

    def validate(self, validation: Source) -> None:
        """Score the averaged weights, and keep them if they are the best so far."""
        with self.average.standing_in(self.peer.network):
            each = self.scores(validation, self.work.validation_tasks)
            value = sum(each) / len(each)
            self.curve.append((self.seconds, value))
            if value > self.best:
                self.best, self.best_state = value, self._weights()

    def save(self, file: Path) -> None:
        """All that going on needs."""
        content = io.BytesIO()
        torch.save(
            {
                "network": self.peer.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.saved(),
                "best_state": self.best_state,
                "best": self.best,
                "iteration": self.iteration,
                "seconds": self.seconds,
                "curve": self.curve,
            },
            content,
        )
        atomic_write(file, content.getvalue())

    def load(self, file: Path) -> None:
        state = torch.load(file, map_location="cpu", weights_only=True)
        self.peer.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.load(state["average"])
        self.best, self.best_state = state["best"], state["best_state"]
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.curve = [(float(a), float(b)) for a, b in state["curve"]]


def planned(work: Work, name: str, budget: str, amount: float, root: Path | None) -> tuple[int, int]:
    """Meta-batches that a budget allows; there is no classification stage."""
    work = work.shaped(SYSTEMS[name].wide)
    if budget == "images":
        return 0, max(round(amount / work.images_per_step), 1)
    training = Training(work, name, work.training(root), 1000)
    return 0, max(round(amount / plans.mean_seconds(training.step, training.ahead())), 1)


def trained(
    work: Work, name: str, budget: str, amount: float, folder: Path, root: Path | None, validations: int
) -> dict[str, Any]:
    """Train, or go on; what to report of the training."""
    settings = settings_of(work, name, validations)
    plan = plans.kept(folder, amount, lambda: planned(work, name, budget, amount, root), settings)
    training = restored(work, name, folder, root)
    training.run(folder, work.evaluation("val", root), validations)
    return {
        "iterations": [0, training.iterations],
        "images": training.iterations * training.work.images_per_step,
        "training_seconds": training.seconds,
        "threads": plan.threads,
        "training_commit": plan.commit,
        "curve": training.curve,
        "protocol": SYSTEMS[name].protocol,
        "note": SYSTEMS[name].note,
    }


def settings_of(work: Work, name: str, validations: int) -> dict[str, Any]:
    """All that decides what is learned and kept, for a training is gone on with under no other."""
    peer = SYSTEMS[name]
    shaped = work.shaped(peer.wide)
    return shaped.settings() | {"maml_step": shaped.maml_step, "peer": name, "validations": validations}


def restored(work: Work, name: str, folder: Path, root: Path | None) -> Training:
    """A training as its folder holds it."""
    plan = plans.Plan.read(folder)
    assert plan is not None, "trained before it is scored"
    work = work.shaped(SYSTEMS[name].wide)
    training = Training(work, name, work.training(root), plan.steps[1])
    if (folder / "checkpoint.pt").is_file():
        training.load(folder / "checkpoint.pt")
    return training


def scores(work: Work, name: str, folder: Path, source: Source, tasks: int, root: Path | None) -> list[float]:
    """Of the best weights, on each task."""
    training = restored(work, name, folder, root)
    training.peer.network.load_state_dict(training.best_state)
    return training.scores(source, tasks)
