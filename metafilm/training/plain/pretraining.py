"""What comes before the outer loop: the plain backbone learns to tell all training classes apart.

Chen et al., "A closer look at few-shot classification" (ICLR 2019, arXiv:1904.04232) and Tian et al.,
"Rethinking few-shot image classification" (ECCV 2020, arXiv:2003.11539) showed how far that alone goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from episodes import Episode
from episodes.progress import Progress
from metafilm import film, norms
from metafilm.config.config import Config
from metafilm.config.settings import Pretrain
from metafilm.config.sources import Source
from metafilm.engine.distributed import Group, WorkerLost
from metafilm.errors import NotFinite, RunError, first_line
from metafilm.learner.learner import MetaFiLM
from metafilm.storage.models import load_state
from metafilm.storage.run import RunDirectory
from metafilm.training import optimiser
from metafilm.training.interrupt import interruptible
from metafilm.training.outer_gradient import Diverged, finite
from metafilm.training.plain.classifiers import classified, classifier
from metafilm.training.randomness import PLAIN, drawn

TRAIN_ANEW = "lower --pretrain.learning-rate and train anew"


class Pretraining:
    """The stage's state and its step.

    Args:
        learner: whose backbone learns; frozen or not, it does here.
        config: all settings, of which ``pretrain`` says how.
        source: batches of plain images (:func:`metafilm.config.sources.plain_source`).
    """

    def __init__(self, learner: MetaFiLM, config: Config, source: Source) -> None:
        self.learner, self.config, self.source = learner, config, source
        self.classifier = classifier(learner, config, source.classes)
        self.frozen = not any(parameter.requires_grad for parameter in learner.backbone.parameters())
        self._require_gradients(True)
        own = learner.outer_parameters()
        parameters = [value for name, value in own.items() if name.startswith("backbone.")]
        peak, decay = config.pretrain.learning_rate, config.pretrain.weight_decay
        groups = optimiser.by_decay(parameters, peak, decay)
        groups += optimiser.of_classifier(self.classifier, peak, decay)
        momentum = config.pretrain.momentum
        self.optimiser = torch.optim.SGD(groups, lr=peak, momentum=momentum, nesterov=momentum > 0)
        decay = config.pretrain.average
        self.average = optimiser.MovingAverage(self._learned(), decay) if decay else None
        self.iteration = 0
        self.seconds = 0.0

    def _learned(self) -> nn.Module:
        return nn.ModuleDict({"learner": self.learner, "classifier": self.classifier})

    def _require_gradients(self, wanted: bool) -> None:
        """Let all weights of the backbone learn, or none; deviations are no weights."""
        deviations = film.parameters(self.learner.backbone)
        for name, parameter in self.learner.backbone.named_parameters():
            if name not in deviations:
                parameter.requires_grad_(wanted)

    def step(self, batch: Episode) -> dict[str, float]:
        """One update from a batch of images with their classes; returns its loss and accuracy (percent).
        After the last the weights are their moving average, where one is kept.

        Raises:
            Diverged: the loss is not finite; the weights are then still those before this step.
        """
        learner = self.learner
        learner.train()
        norms.discard(learner.backbone)
        with (
            learner.in_precision(self.config.outer.precision),
            drawn(self.config.seed, self.iteration, PLAIN, learner.mean.device),
        ):
            size = image_size(self.iteration, self.config.pretrain)
            smoothing = self.config.pretrain.label_smoothing
            loss, accuracy = classified(learner, self.classifier, self.source, batch, size, smoothing)
        loss = finite(loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.set_rate(self.optimiser, rate(self.iteration, self.config.pretrain.iterations))
        self.optimiser.step()
        norms.commit(learner.backbone)
        if self.average is not None:
            self.average.update(self._learned())
        self.iteration += 1
        if self.average is not None and self.iteration == self.config.pretrain.iterations:
            self._learned().load_state_dict(self.average.state())
        return {"pretrain_loss": float(loss.detach()), "pretrain_accuracy": accuracy}

    def finish(self) -> None:
        """A backbone that was frozen is frozen again."""
        self.learner.zero_grad(set_to_none=True)
        if self.frozen:
            self._require_gradients(False)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs; ``iteration`` counts up to 0, where the outer loop begins."""
        state = {
            "iteration": self.iteration - self.config.pretrain.iterations,
            "learner": self.learner.state_dict(),
            "classifier": self.classifier.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "seconds": self.seconds,
        }
        if self.average is not None:
            state["average"] = self.average.saved()
        return state

    def load(self, state: dict[str, Any], path: str | Path) -> None:
        """Go on from a :meth:`state`.

        Raises:
            CheckpointError: it does not fit the learner.
            RunError: it does not fit classifier or optimiser; ``path`` names it.
        """
        load_state(self.learner, state["learner"], path)
        try:
            self.classifier.load_state_dict(state["classifier"])
            optimiser.load(self.optimiser, state["optimiser"])
            if self.average is not None:
                self.average.load(state.get("average"))
        except (ValueError, RuntimeError) as error:
            raise RunError(
                f"{path} does not fit this run ({first_line(error)}); delete it to start the run anew"
            ) from error
        self.iteration = state["iteration"] + self.config.pretrain.iterations
        self.seconds = state["seconds"]


def rate(iteration: int, iterations: int) -> float:
    """The learning rate of iteration 0, 1 ... as a fraction of its peak."""
    return optimiser.warm_cosine(iteration, iterations, max(iterations // 20, 1))


def image_size(iteration: int, settings: Pretrain) -> int | None:
    """The shorter side of the images of iteration 0, 1 ...: each of ``image_sizes`` for an equal part of the
    iterations; None: as they come."""
    sizes = settings.image_sizes
    return sizes[iteration * len(sizes) // settings.iterations] if sizes else None


def belongs(state: dict[str, Any] | None) -> bool:
    """Whether a run's checkpoint is of this stage."""
    return state is not None and "classifier" in state


def pretrain(
    stage: Pretraining,
    run: RunDirectory,
    log: Callable[[dict[str, Any]], None],
    validate: Callable[[], dict[str, Any]],
    group: Group,
    state: dict[str, Any] | None,
    progress: bool | None = None,
) -> float:
    """The stage from its start, or from its checkpoint, to its end.

    Every process of a group does the same work: it is a small part of a run, and the weights are then those
    that one process gives.

    Args:
        stage: a fresh one.
        run: takes the checkpoints.
        log: takes the metrics, whose ``iteration`` counts up to 0.
        validate: scores the network at the end of the stage; what it returns is logged.
        state: of this stage, if the run has a checkpoint.

    Returns:
        How many seconds it took.

    Raises:
        Diverged: a loss was not finite, naming the iteration; or what the stage ends with is not.
        KeyboardInterrupt: after writing a checkpoint, upon Ctrl-C or SIGTERM.
        WorkerLost: another process has died; the checkpoint is written first.
    """
    settings = stage.config
    total = settings.pretrain.iterations
    if state is not None:
        stage.load(state, run.checkpoint_file)
    if group.leads:
        run.truncate_metrics(stage.iteration - total)
    remaining = range(stage.iteration, total)
    ahead = stage.source.sampler.prefetch([i] for i in remaining)
    last_saved = time.perf_counter()
    title = f"{settings.name}: pre-training"
    with (
        interruptible(last_words=group.size > 1) as interrupted,
        Progress(title, total=total, show=progress if group.leads else False) as bar,
        closing(ahead) as prefetched,  # type: ignore[type-var]
    ):
        bar.advance(stage.iteration)
        begin = time.perf_counter()
        for _, (batch,) in zip(remaining, prefetched, strict=False):
            try:
                report: dict[str, Any] = {**stage.step(batch)}
            except Diverged as error:
                where = f"{error} at iteration {stage.iteration + 1} of the pre-training"
                raise Diverged(f"{where}; {TRAIN_ANEW}") from error
            last = stage.iteration == total
            if last:
                try:
                    report |= validate()
                except NotFinite as error:
                    where = "validation at the end of the pre-training"
                    raise Diverged(f"{where}: {error}; {TRAIN_ANEW}") from error
            stage.seconds += time.perf_counter() - begin
            begin = time.perf_counter()
            stop = interrupted.is_set()
            if group.size > 1:
                try:
                    stop = bool(group.sum(torch.tensor([float(stop)], device=group.device))[0])
                except WorkerLost as error:
                    if group.leads:
                        run.save_checkpoint(stage.state())
                    raise WorkerLost(
                        f"{error}; {run.checkpoint_file} has the pre-training up to its iteration "
                        f"{stage.iteration}. The same command goes on from there"
                    ) from error
            if group.leads:
                if last or stage.iteration % 10 == 0 or stage.iteration == 1:
                    done = {"iteration": stage.iteration - total, "seconds": stage.seconds}
                    log(done | report)
                late = time.perf_counter() - last_saved > settings.evaluation.checkpoint_every_seconds
                if last or stop or late:
                    run.save_checkpoint(stage.state())
                    last_saved = time.perf_counter()
            bar.advance(1, f"{title}  loss {report['pretrain_loss']:.4f}")
            if stop:
                raise KeyboardInterrupt
    stage.finish()
    return stage.seconds
