"""Where a run's numbers go: always metrics.jsonl, and Weights & Biases where it is asked for."""

import os
from collections.abc import Mapping
from typing import Any

from metafilm.config.config import Config
from metafilm.errors import MetafilmError
from metafilm.storage.atomic import atomic_write, finite
from metafilm.storage.run import RunDirectory


class Tracker:
    """Takes a run's metrics; use as a context manager, or call `finish`.

    With `tracking.wandb` offline nothing leaves the machine: wandb writes below the run directory, and
    `wandb sync` uploads it later. A resumed run goes on under the same wandb id.

    Raises MetafilmError when wandb is asked for and not installed.
    """

    def __init__(self, run: RunDirectory, config: Config):
        self.run = run
        self._first = config.pretrain.iterations  # wandb counts its steps from 0
        self._wandb = None if config.tracking.wandb == "disabled" else start_wandb(run, config)

    def log(self, record: Mapping[str, Any]) -> None:
        """One record, whose `iteration` counts the optimiser steps taken, those of a pre-training up to 0;
        names may be nested with `/`."""
        self.run.append_metrics(record)
        if self._wandb is not None:
            known = {name: value for name, value in finite(record).items() if value is not None}
            self._wandb.log(known, step=known.pop("iteration") + self._first)

    def finish(self, results: Mapping[str, Any] | None = None, failed: bool = False) -> None:
        """End the tracking; plain values of `results` become wandb's summary. Safe to call twice."""
        if self._wandb is None:
            return
        for name, value in (results or {}).items():
            if isinstance(value, (int, float, str)):
                self._wandb.summary[name] = value
        self._wandb.finish(exit_code=1 if failed else 0)
        self._wandb = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.finish(failed=kind is not None)


def start_wandb(run: RunDirectory, config: Config) -> Any:
    """A wandb run whose id lies in the run directory, so that resuming the one resumes the other."""
    if config.tracking.wandb == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # or importing it opens a line to its makers
    try:
        import wandb
    except ImportError as error:
        raise MetafilmError(
            f"--tracking.wandb {config.tracking.wandb} needs the wandb package: "
            'pip install "metafilm[wandb]", or --tracking.wandb disabled'
        ) from error
    id_file = run.path / "wandb-id.txt"
    if not id_file.is_file():
        atomic_write(id_file, os.urandom(8).hex().encode())
    try:
        return wandb.init(
            project=config.tracking.project,
            name=config.name,
            id=id_file.read_text().strip(),
            resume="allow" if config.tracking.wandb == "online" else None,
            mode=config.tracking.wandb,
            dir=run.path,
            config=config.to_dict(),
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
    except wandb.Error as error:  # no account, no network
        raise MetafilmError(
            f"wandb did not start ({error}); log in with `wandb login`, or use --tracking.wandb offline"
        ) from error
