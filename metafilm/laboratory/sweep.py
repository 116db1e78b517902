"""A sweep: trainings of one configuration, its settings proposed by a sampler, judged by validation."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from episodes.errors import EpisodesError
from episodes.progress import Progress
from metafilm.errors import MetafilmError
from metafilm.laboratory.faults import CAUGHT, of_settings, require
from metafilm.laboratory.study import Claimed, Plan, StudyFolder
from metafilm.storage.run import RunDirectory
from metafilm.training.interrupt import interruptible
from metafilm.training.run import train
from metafilm.training.tracking import Tracker

ALIKE = 3  # trials that fail for one reason, one after the other, before a process stops


def sweep(
    folder: StudyFolder,
    trials: int,
    workers: int = 1,
    data_root: str | Path | None = None,
    progress: bool | None = None,
) -> None:
    """Train until the study has so many trials, with so many processes; those that others left go on first.
    A trial whose settings can't be trained has failed, for a reason that is kept; the others go on. Whatever
    else ends a training ends the call, and leaves the trial to the next.

    Args:
        folder: an open folder.
        trials: in all, of this and of earlier calls, and of other processes in the same folder.
        workers: processes. The same call in another process joins in as well.
        data_root: see :func:`episodes.data_root`.
        progress: show bars: True, False, or when somebody looks (None).

    Raises:
        EpisodesError, MetafilmError: the data, the device or the tracker are not there, or validation classes
            are trained on; several trials, one after the other, failed for the same reason.
        RuntimeError: of a training, not by its settings: the memory of a GPU that others hold, say.
        KeyboardInterrupt: after each training has written its checkpoint, upon Ctrl-C or SIGTERM; the same
            call goes on from there.
    """
    require(folder.plan.config, data_root)  # before a study of nothing but failures
    if workers == 1:
        work(folder, trials, data_root, progress)
        return
    context = multiprocessing.get_context("spawn")
    arguments = (folder.path, folder.plan, trials, data_root)
    processes = [context.Process(target=_worker, args=arguments) for _ in range(workers)]
    with interruptible() as interrupted, Progress("trials", total=trials, show=progress) as bar:
        for process in processes:
            process.start()
        told = False
        done = 0
        while any(process.is_alive() for process in processes):
            if interrupted.is_set() and not told:
                told = True
                for process in processes:
                    process.terminate()  # SIGTERM, upon which a training writes its checkpoint
            now = sum(trial.state.is_finished() for trial in folder.trials())
            bar.advance(now - done)
            done = now
            for process in processes:
                process.join(0.5 / workers)
    if interrupted.is_set():
        raise KeyboardInterrupt
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise MetafilmError(
            f"{len(failed)} of {workers} workers ended early (exit code {failed[0]}; see above); the same "
            "command goes on with what they left"
        )


def _worker(path: Path, plan: Plan, trials: int, data_root: Path | None) -> None:
    """A process that :func:`sweep` starts."""
    try:
        work(StudyFolder.open(path, plan), trials, data_root, progress=False)
    except KeyboardInterrupt:
        sys.exit(130)
    except (MetafilmError, EpisodesError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def work(
    folder: StudyFolder, trials: int, data_root: str | Path | None = None, progress: bool | None = None
) -> None:
    """One process's share of a :func:`sweep`."""
    alike: list[str] = []
    while not _abandoned() and (claimed := folder.claim(trials)) is not None:
        with claimed.run:
            reason = _train(folder, claimed, data_root, progress)
        if reason is None:
            alike = []
            continue
        alike = [*(alike if reason in alike else []), reason]
        if len(alike) == ALIKE:
            raise MetafilmError(
                f"{ALIKE} trials failed one after the other, trial {claimed.number} the last, for the same "
                f"reason: {reason}. If that is the machine's, mend it; the same command goes on with the "
                "trials that are left"
            )


def _abandoned() -> bool:
    """Whether this is a worker whose sweep was killed: it has no business to go on unseen."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _train(
    folder: StudyFolder, claimed: Claimed, data_root: str | Path | None, progress: bool | None
) -> str | None:
    """A trial from its start or its checkpoint to its end, and into the study; the reason if it failed."""
    measure = folder.plan.measure
    given_up = False

    def validated(record: Mapping[str, Any]) -> bool:
        nonlocal given_up
        if _abandoned():
            raise KeyboardInterrupt
        given_up = folder.report(claimed, record["iteration"], record[f"validation_{measure}"])
        return given_up

    try:
        with Tracker(claimed.run, claimed.config) as tracker:
            results = train(
                claimed.config, claimed.run, tracker, data_root, progress=progress, validated=validated
            )
            tracker.finish(results)
    except CAUGHT as error:
        if not of_settings(error, claimed.config, folder.plan.config, data_root):
            raise
        reason = str(error) or type(error).__name__
        folder.finish(claimed.id, claimed.number, "FAIL", reason=reason)
        print(f"trial {claimed.number}: failed: {reason}", flush=True)
        return reason
    facts = _facts(claimed.run, results, measure)
    if given_up:
        folder.finish(claimed.id, claimed.number, "PRUNED", **facts)
    else:
        folder.finish(claimed.id, claimed.number, "COMPLETE", results["best_validation"], **facts)
    end = f"given up at iteration {results['iterations']}" if given_up else "done"
    print(f"trial {claimed.number}: {end}, best validation {results['best_validation']:.4g}", flush=True)
    return None


def _facts(run: RunDirectory, results: Mapping[str, Any], measure: str) -> dict[str, Any]:
    """What the table says of a trial besides its settings and score: of its best validation."""
    best = next(
        (r for r in run.read_metrics() if r["iteration"] == results["best_iteration"] and "gap" in r), {}
    )
    return {
        "best_validation": results["best_validation"],
        "best_iteration": results["best_iteration"],
        "iterations": results["iterations"],
        "ci95": best.get("validation_ci95"),
        "training_classes": best.get(f"training_classes_{measure}"),
        "training_seconds": results["training_seconds"],
        "process": os.getpid(),
        "environment": results["environment"],
    }
