"""What takes a run's metrics while it goes on, and its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from metafilm.config.config import Config
from metafilm.storage.atomic import finite
from metafilm.storage.run import RunDirectory
from metafilm.training.tracking.conclusion import conclude
from metafilm.training.tracking.pictures import Judged
from metafilm.training.tracking.start import start_wandb


class Tracker:
    """Takes a run's metrics; use as a context manager, or call `finish`.

    With `tracking.wandb` offline nothing leaves the machine: wandb writes below the run directory, and
    `wandb sync` uploads it later. A resumed run goes on under the same wandb id.

    Raises MetafilmError when wandb is asked for and not installed.
    """

    def __init__(self, run: RunDirectory, config: Config):
        self.run, self.config = run, config
        self._first = config.pretrain.iterations  # wandb counts its steps from 0
        self._wandb = None if config.tracking.wandb == "disabled" else start_wandb(run, config)

    def log(self, record: Mapping[str, Any]) -> None:
        """One record, whose `iteration` counts the optimiser steps taken, those of a pre-training up to 0;
        names may be nested with `/`."""
        self.run.append_metrics(record)
        if self._wandb is not None:
            known = {name: value for name, value in finite(record).items() if value is not None}
            self._wandb.log(known, step=known.pop("iteration") + self._first)

    def conclude(self, worst: Callable[[], Judged | None]) -> None:
        """What is said once, when the training is over: in wandb tables, pictures and the weights; see
        `metafilm.training.tracking.conclusion`. Without wandb nothing, and `worst` is not called."""
        if self._wandb is not None:
            conclude(self._wandb, self.run, self.config, worst())

    def finish(self, results: Mapping[str, Any] | None = None, failed: bool = False) -> None:
        """End the tracking; plain values of `results` become wandb's summary. Safe to call twice."""
        if self._wandb is None:
            return
        for name, value in (results or {}).items():
            if isinstance(value, (int, float, str)):
                self._wandb.summary[name] = value
        self._wandb.finish(exit_code=1 if failed else 0)
        self._wandb = None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.finish(failed=kind is not None)
