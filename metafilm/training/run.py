"""A training run from its start, or from its checkpoint, to its end."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import torch

from episodes.progress import Progress
from metafilm.config.config import Config
from metafilm.config.sources import plain_source
from metafilm.engine.device import device_named
from metafilm.engine.distributed import Group, WorkerLost
from metafilm.engine.memory import keep_freed_memory
from metafilm.errors import MetafilmError, NotFinite, RunError
from metafilm.learner.build import build_learner
from metafilm.storage.environment import environment
from metafilm.storage.models import adapts
from metafilm.storage.run import RunDirectory
from metafilm.training import chunks
from metafilm.training.chunks import Chunks
from metafilm.training.data import Data, open_data
from metafilm.training.interrupt import interruptible
from metafilm.training.outer_gradient import Diverged
from metafilm.training.outer_loop import OuterLoop
from metafilm.training.plain.pretraining import Pretraining, belongs, pretrain
from metafilm.training.randomness import undrawn
from metafilm.training.validation import plainly, validate

GO_ON = "The same command goes on from there"
TRAIN_ANEW = "Lower --outer.learning-rate or --inner.step-size and train anew"


class Tracker(Protocol):
    """Where metrics go: one record per iteration that has something to say."""

    def log(self, record: dict[str, Any]) -> None: ...


def train(
    config: Config,
    run: RunDirectory,
    tracker: Tracker,
    data_root: str | Path | None = None,
    *,
    progress: bool | None = None,
    group: Group | None = None,
    data: Data | None = None,
    validated: Callable[[Mapping[str, Any]], bool] | None = None,
) -> dict[str, Any]:
    """Train a run to its end, from its checkpoint if it has one.

    Args:
        config: all settings.
        run: an open run directory; takes metrics, checkpoints and the best weights.
        tracker: where metrics go.
        data_root: see :func:`episodes.data_root`.
        progress: show a bar: True, False, or when somebody looks (None).
        group: the processes that train it together, all of which call this; its leader alone writes to
            ``run`` and ``tracker``. None: this process alone.
        data: what :func:`metafilm.training.data.open_data` gave for this config; None: opened here.
        validated: called with the record of each validation, once that and its checkpoint are written; True
            ends the training there. Of a single process alone.

    Returns:
        What ``results.json`` says: best validation score and its iteration, how far its learner adapts
        (``evaluation.adapt``; of the leader's alone), training seconds, iterations.

    Raises:
        Diverged: naming the iteration and the last good checkpoint.
        KeyboardInterrupt: after writing a checkpoint, upon Ctrl-C or SIGTERM.
        WorkerLost: another process has died; naming the checkpoint, which is written first.
    """
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    group = group or Group()
    source, validation, seen, begun = data or open_data(config, data_root, group)
    build = source.build
    learner = build_learner(config, **build)  # type: ignore[arg-type]
    learner.trained_on = begun or None
    learner = learner.to(device_of(config, group), memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = _shared(run.load_checkpoint() if group.leads else None, group)
    if state is None and group.leads:
        run.remove_outcome()
    before, known = 0.0, None
    if config.pretrain.iterations and (state is None or belongs(state)):
        stage = Pretraining(learner, config, plain_source(config, source.pools))

        def score() -> dict[str, Any]:
            return plainly(learner, validation, seen, config, group)

        before = pretrain(stage, run, tracker.log, score, group, state, progress)
        state, known = None, stage.classifier.state_dict()
    loop = OuterLoop(learner, config, source, group)
    loop.seconds = before
    if loop.plain is not None and known is not None:
        loop.plain.classifier.load_state_dict(known)
    _begin(loop, run, state)
    last_saved = time.perf_counter()
    iterations = config.outer.iterations
    remaining = range(loop.iteration, iterations)
    ahead = source.sampler.prefetch((loop.indices(i) for i in remaining), loop.chunks.tasks)
    with (
        interruptible(last_words=group.size > 1) as interrupted,
        Progress(config.name, total=iterations, show=progress if group.leads else False) as bar,
        closing(ahead) as prefetched,  # type: ignore[type-var]
        closing(loop),
    ):
        bar.advance(loop.iteration)
        begin = time.perf_counter()
        for _, episodes in zip(remaining, prefetched, strict=False):
            loop.stopping = interrupted.is_set()
            try:
                report = loop.step(episodes)
            except Diverged as error:
                raise Diverged(f"{error}; {_last_good(run)}. {TRAIN_ANEW}") from error
            except WorkerLost as error:
                if group.leads:  # the weights are still those before this step
                    run.save_checkpoint(loop.state())
                raise WorkerLost(
                    f"{error}; {_last_good(run)}. The same command goes on from there"
                ) from error
            due = loop.iteration % config.evaluation.every == 0 or loop.iteration == iterations
            if due:
                try:
                    report |= validate(loop, validation, seen, run, build, config)
                except WorkerLost as error:
                    raise WorkerLost(f"{error}; {_last_good(run)}. {GO_ON}") from error
                except NotFinite as error:
                    where = f"validation at iteration {loop.iteration}"
                    raise Diverged(f"{where}: {error}; {_last_good(run)}. {TRAIN_ANEW}") from error
            loop.seconds += time.perf_counter() - begin
            begin = time.perf_counter()
            stop = loop.stopping or (group.size == 1 and interrupted.is_set())
            if group.leads:
                if due or loop.iteration % 10 == 0 or loop.iteration == 1:
                    tracker.log({"iteration": loop.iteration, "seconds": loop.seconds, **report})
                if (
                    due
                    or stop
                    or time.perf_counter() - last_saved > config.evaluation.checkpoint_every_seconds
                ):
                    run.save_checkpoint(loop.state())
                    last_saved = time.perf_counter()
            bar.advance(1, _line(config.name, report, loop))
            # told before a stop, as a resumed run does not validate this iteration again
            enough = due and validated is not None and validated({"iteration": loop.iteration, **report})
            if stop:
                raise KeyboardInterrupt
            if enough:
                break
    results = {
        "best_validation": loop.best,
        "best_iteration": loop.best_iteration,
        "adapt": adapts(run.model_file) if group.leads else None,
        "iterations": loop.iteration,
        "training_seconds": loop.seconds,
        "threads": torch.get_num_threads(),
        "processes": group.size,
        "task_chunk": loop.chunks.tasks,
        "query_chunk": loop.chunks.queries,
        "environment": environment(),
    }
    if group.leads:
        run.write_results(results)
    return results


def _begin(loop: OuterLoop, run: RunDirectory, state: dict[str, Any] | None) -> None:
    """Start from the checkpoint, or from the leader's fresh weights, on every process."""
    if state is not None:
        loop.load(state, run.checkpoint_file)
    elif loop.group.leads:
        loop.chunks = _chosen(loop, run)
    if loop.group.leads:
        run.truncate_metrics(loop.iteration)
    if loop.group.size > 1:
        loop.load(_shared(loop.state() if loop.group.leads else None, loop.group), run.checkpoint_file)


def _shared(state: dict[str, Any] | None, group: Group) -> Any:
    """The leader's state on every process."""
    if group.size == 1:
        return state
    content = io.BytesIO()
    torch.save(state, content)
    received = io.BytesIO(group.send(content.getvalue() if group.leads else None))
    return torch.load(received, map_location="cpu", weights_only=True)


def _chosen(loop: OuterLoop, run: RunDirectory) -> Chunks:
    """The chunks that this run was begun with, chosen now if it begins. They are chosen by time, so another
    time's may differ, and a run killed before its first checkpoint would end in other last bits."""
    kept = run.read_chunks()
    if kept is not None:
        return Chunks(*kept)
    sampler, first = loop.source.sampler, loop.indices(0)
    with undrawn(loop.learner.mean.device):
        found = chunks.measure(
            loop.learner, loop.config.outer, lambda size: list(sampler.batches(first, size)), loop.gradient
        )
    run.write_chunks(found.tasks, found.queries)
    return found


def device_of(config: Config, group: Group) -> torch.device:
    """Where to train.

    Raises:
        MetafilmError: the settings ask for a GPU and there is none, or not one for each process.
    """
    device = device_named(config.device)
    if device.type == "cpu" or group.size == 1:
        return device
    if config.device == "cuda" and group.device.type != "cuda":
        raise MetafilmError(
            f"--device cuda with {group.size} processes on {torch.cuda.device_count()} GPUs: each needs one "
            "of its own; start fewer, or use --device cpu"
        )
    return group.device


def _last_good(run: RunDirectory) -> str:
    try:
        state = run.load_checkpoint()
    except RunError as error:
        return str(error)
    if state is None:
        return "there is no checkpoint yet"
    return f"the last good checkpoint is {run.checkpoint_file} (iteration {state['iteration']})"


def _line(name: str, report: dict[str, Any], loop: OuterLoop) -> str:
    best = "" if loop.best is None else f"  best validation {loop.best:.4g}"
    accuracy = f"  accuracy {report['accuracy']:.1f} %" if "accuracy" in report else ""
    return f"{name}  loss {report['loss']:.4f}{accuracy}{best}"
