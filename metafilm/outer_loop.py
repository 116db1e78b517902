"""The outer loop: everything learns from how well the adapted networks do on their queries."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from episodes import Episode
from episodes.progress import Progress
from metafilm import norms, optimiser
from metafilm.build import build_learner
from metafilm.checkpoint import load_state, save_model
from metafilm.config import Config
from metafilm.data import Source, evaluation_source, training_source
from metafilm.errors import MetafilmError
from metafilm.evaluation import evaluate, score
from metafilm.film import FilmDict
from metafilm.learner import MetaFiLM
from metafilm.memory import keep_freed_memory
from metafilm.rundir import RunDirectory

VALIDATION_SEED = 1_000_000
GAP_WARNING = 15.0  # percentage points


class Tracker(Protocol):
    """Where metrics go: one record per iteration that has something to say."""

    def log(self, record: dict[str, Any]) -> None: ...


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


def train(
    config: Config,
    run: RunDirectory,
    tracker: Tracker,
    data_root: str | Path | None = None,
    *,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train a run to its end, from its checkpoint if it has one.

    Args:
        config: all settings.
        run: an open run directory; takes metrics, checkpoints and the best weights.
        tracker: where metrics go.
        data_root: see :func:`episodes.data_root`.
        progress: show a bar: True, False, or when somebody looks (None).

    Returns:
        What ``results.json`` says: best validation score and its iteration, training seconds, iterations.

    Raises:
        Diverged: naming the iteration and the last good checkpoint.
        KeyboardInterrupt: after writing a checkpoint.
    """
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    source = training_source(config, data_root)
    validation = evaluation_source(config, config.data.validation_split, data_root, seed=VALIDATION_SEED)
    seen = evaluation_source(config, config.data.train_split, data_root, seed=VALIDATION_SEED)
    build = source.build
    learner = build_learner(config, **build).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    loop = OuterLoop(learner, config, source)
    state = run.load_checkpoint()
    if state is not None:
        loop.load(state, run.checkpoint_file)
    run.truncate_metrics(loop.iteration if state is not None else None)
    last_saved = time.perf_counter()
    iterations = config.outer.iterations
    remaining = range(loop.iteration, iterations)
    ahead = source.sampler.prefetch((loop.indices(i) for i in remaining), config.outer.task_chunk)
    with (
        _interruptible() as interrupted,
        Progress(config.name, total=iterations, show=progress) as bar,
        closing(ahead) as prefetched,  # type: ignore[type-var]
    ):
        bar.advance(loop.iteration)
        begin = time.perf_counter()
        for _, episodes in zip(remaining, prefetched, strict=False):
            try:
                report = loop.step(episodes)
            except Diverged as error:
                good = (
                    f"the last good checkpoint is {run.checkpoint_file} (iteration {_saved(run)})"
                    if run.checkpoint_file.exists()
                    else "there is no checkpoint yet"
                )
                raise Diverged(
                    f"{error}; {good}. Lower --outer.learning_rate or --inner.step_size and train anew"
                ) from error
            due = loop.iteration % config.evaluation.every == 0 or loop.iteration == iterations
            if due:
                report |= _validate(loop, validation, seen, run, build, config)
            loop.seconds += time.perf_counter() - begin
            begin = time.perf_counter()
            if due or loop.iteration % 10 == 0 or loop.iteration == 1:
                tracker.log({"iteration": loop.iteration, "seconds": loop.seconds, **report})
            stop = interrupted.is_set()
            if due or stop or time.perf_counter() - last_saved > config.evaluation.checkpoint_every_seconds:
                run.save_checkpoint(loop.state())
                last_saved = time.perf_counter()
            bar.advance(1, _line(config.name, report, loop))
            if stop:
                raise KeyboardInterrupt
    results = {
        "best_validation": loop.best,
        "best_iteration": loop.best_iteration,
        "iterations": loop.iteration,
        "training_seconds": loop.seconds,
        "threads": torch.get_num_threads(),
    }
    run.write_results(results)
    return results


def _validate(
    loop: OuterLoop,
    validation: Source,
    seen: Source,
    run: RunDirectory,
    build: dict[str, object],
    config: Config,
) -> dict[str, Any]:
    """Score the (averaged) weights on validation classes, and on training classes to see the gap; keep the
    best.
    """
    with loop.averaged() as learner:
        count = config.evaluation.episodes
        found = evaluate(learner, validation.sampler, count, progress=False)
        known = evaluate(learner, seen.sampler, max(count // 4, 2), by_stage=False, progress=False)
        measure = "mse" if learner.regression else "accuracy"
        value = found[measure]
        better = loop.best is None or (value < loop.best if learner.regression else value > loop.best)
        if better:
            loop.best, loop.best_iteration = value, loop.iteration
            save_model(run.model_file, learner.state_dict(), config, build)
    gap = known[measure] - value
    if not learner.regression and gap > GAP_WARNING:
        warnings.warn(
            f"iteration {loop.iteration}: training classes score {known[measure]:.1f} %, validation classes "
            f"{value:.1f} %: the learner overfits its training classes; raise --outer.penalty or "
            "--outer.weight_decay, or augment",
            stacklevel=2,
        )
    return {
        f"validation_{measure}": value,
        "validation_ci95": found["ci95"],
        f"validation_{measure}_by_step": found[f"{measure}_by_step"],
        "validation_stages": found["stages"],
        f"training_classes_{measure}": known[measure],
        "gap": gap,
    }


def _line(name: str, report: dict[str, Any], loop: OuterLoop) -> str:
    best = "" if loop.best is None else f"  best validation {loop.best:.4g}"
    accuracy = f"  accuracy {report['accuracy']:.1f} %" if "accuracy" in report else ""
    return f"{name}  loss {report['loss']:.4f}{accuracy}{best}"


def _saved(run: RunDirectory) -> int:
    state = run.load_checkpoint()
    return 0 if state is None else int(state["iteration"])


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that the step under way ends first; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
