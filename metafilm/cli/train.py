"""`metafilm train`: a run from its start or from its checkpoint to its end."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.engine import distributed
from metafilm.learner.build import load_learner
from metafilm.storage.run import RunDirectory
from metafilm.training.data import open_data
from metafilm.training.run import train
from metafilm.training.tracking import Judged, Tracker, under_sweep


def train_or_resume(config: Config, run_dir: Path | None, data_root: Path | None) -> int:
    """Train and say where everything is; 130 after Ctrl-C, once the checkpoint is written.

    Nothing is written before the data are there. Under torchrun every process calls this; the first alone
    opens the folder and speaks. An agent of a sweep at Weights & Biases changes settings and folder, see
    `under_sweep`. Raises EpisodesError and MetafilmError, see `RunDirectory.open`, `open_data`
    and `metafilm.training.run.train`.
    """
    config, run_dir = under_sweep(config, run_dir)
    path = run_dir or Path("runs") / config.name
    group = distributed.start()
    try:
        if group.leads:
            code = _lead(config, path, data_root, group)
        else:
            code = _follow(config, path, data_root, group)
    except BaseException:
        distributed.stop()
        raise
    if group.size > 1:
        distributed.leave(code)
    return code


def _follow(config: Config, path: Path, data_root: Path | None, group: distributed.Group) -> int:
    try:
        train(config, RunDirectory(path), Silent(), data_root, group=group)
    except KeyboardInterrupt:
        return 130
    group.wait()
    return 0


def _lead(config: Config, path: Path, data_root: Path | None, group: distributed.Group) -> int:
    RunDirectory(path).require_usable(config)  # before reading data, which may take long
    data = open_data(config, data_root, group)
    with RunDirectory.open(path, config) as run:
        state = run.load_checkpoint() if run.resumed else None
        others = f" with {group.size} processes" if group.size > 1 else ""
        if state is not None:
            print(f"resuming {path} at {config.reached(state['iteration'])}{others}")
            del state
        else:
            print(f"training {config.name} in {path}{others}")
        try:
            with Tracker(run, config) as tracker:
                results = train(config, run, tracker, data_root, group=group, data=data)
                tracker.conclude(lambda: worst_of(path, data.validation, config.evaluation.episodes))
                tracker.finish(results)
            group.wait()  # all leave the group together
        except KeyboardInterrupt:
            saved = run.load_checkpoint()
            if saved is None:
                print(f"\ninterrupted before the first checkpoint of {path}", file=sys.stderr)
            else:
                print(
                    f"\ninterrupted; {config.reached(saved['iteration'])} is saved in {path}. "
                    "The same command goes on from there.",
                    file=sys.stderr,
                )
            return 130
    print(summary(results, path, chosen=config.evaluation.adapt == "auto"))
    return 0


def worst_of(path: Path, validation: Source, episodes: int) -> Judged | None:
    """The validation task that the run's best weights do worst; None of functions."""
    if not validation.pools:
        return None
    from metafilm.report import Names, score

    names = Names(validation)
    seen = score(load_learner(path), validation, episodes, names).worst[0]
    return Judged(seen.episode, seen.logits, seen.score, names.of(seen.episode))


SHORT = {
    "never": "by itself the learner does not adapt: on validation tasks nothing is clearly better than δ = 0",
    "encoder": "by itself the learner takes no inner steps: on validation tasks they gain nothing clear",
}


class Silent:
    """Where the metrics of the other processes go: nowhere."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Nothing."""


def summary(results: dict, path: Path, chosen: bool = False) -> str:
    """What came out, in two lines; in three where validation chose that the learner goes less far than it
    could."""
    best, iteration = results.get("best_validation"), results.get("best_iteration")
    score = (
        "no validation took place" if best is None else f"best validation {best:.4g} at iteration {iteration}"
    )
    minutes = results.get("training_seconds", 0.0) / 60
    lines = [f"{score}, {minutes:.1f} minutes of training"]
    if chosen and (short := SHORT.get(str(results.get("adapt")))):
        lines.append(f"{short} (metafilm eval shows every stage, --steps asks for them)")
    return "\n".join([*lines, f"score it on test classes: metafilm eval {path}"])
