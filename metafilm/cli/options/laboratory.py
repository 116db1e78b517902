"""Options of the commands that train many times: for the best settings, or to see what each is worth."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from metafilm.cli.options.form import Switch, form
from metafilm.cli.options.training import Settings
from metafilm.config import Config
from metafilm.errors import MetafilmError


@dataclass(frozen=True)
class Sweep:
    """Search settings of a configuration on your data, by validation classes; the same command goes on with a
    sweep, and several at once share it. Any setting can be given another value."""

    config: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CONFIG")]
    """A YAML file, or the name of a shipped configuration."""
    settings: Settings = field(default_factory=lambda: form(Config()))
    search: tuple[str, ...] = ()
    """What to search: outer.penalty=1e-4..1:log (a range, evenly in its logarithm), inner.steps=0..5,
    encoder.decoder=linear,gru (a list); several. Default: what the folder's sweep searches; of a new one
    penalty, weight decays, decoder, inner steps and their size."""
    trials: int = 30
    """Trainings in all. The first has the configuration's own values."""
    workers: int = 1
    """Processes that train at the same time."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Who proposes settings: tpe learns from the trials before; random is its control."""
    pruner: Literal["median", "none"] = "median"
    """median gives a training up that validates worse than half of those before did at that iteration."""
    startup: int = 5
    """Trials before sampler and pruner begin to judge by the earlier ones."""
    run_dir: Path | None = None
    """Folder of the sweep; default: runs/NAME-sweep."""
    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""
    words: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()

    def run(self) -> int:
        low = [name for name in ("trials", "workers", "startup") if getattr(self, name) < 1]
        if low:
            listed = "; ".join(f"--{name} must be at least 1, is {getattr(self, name)}" for name in low)
            raise MetafilmError(listed)
        from metafilm.cli.laboratory import search

        return search(
            self.settings,
            self.search,
            self.run_dir,
            trials=self.trials,
            workers=self.workers,
            sampler=self.sampler,
            pruner=self.pruner,
            startup=self.startup,
            data_root=self.data_root,
            command=shlex.join(["metafilm", *self.words]),
        )


@dataclass(frozen=True)
class Ablate:
    """The regularisation laboratory: train a configuration with one setting changed after the other, on few
    and on many classes, and show what each is worth to new classes; the same command goes on."""

    configs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="CONFIG")] = (
        "laboratory_omniglot",
        "laboratory_miniimagenet",
    )
    """YAML files, or names of shipped configurations."""
    questions: tuple[str, ...] = ()
    """Which questions, by name; default: all."""
    classes: tuple[int, ...] = (8, 16, 32, 64)
    """Numbers of training classes; 0: all there are."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights, tasks and training classes; tables show means over them."""
    episodes: int = 600
    """Tasks on which each arm is scored: so many of validation classes and so many of training classes."""
    iterations: int | None = None
    """Optimiser steps of each training; default: the configuration's."""
    list: Switch = False
    """Say what would be trained, and train nothing."""
    run_dir: Path = Path("runs/ablation")
    """Folder of the trainings, records, tables and figures."""
    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        low = [count for count in self.classes if count < 2 and count != 0]
        wrong = [f"--classes must be 0 or at least 2, is {count}" for count in low]
        if self.episodes < 2:
            wrong.append(f"--episodes must be at least 2, is {self.episodes}")
        if wrong:
            raise MetafilmError("; ".join(wrong))
        from metafilm.cli.laboratory import ablate
        from metafilm.laboratory import QUESTIONS

        return ablate(
            self.configs,
            self.questions or tuple(QUESTIONS),
            self.classes,
            self.seeds,
            self.run_dir,
            episodes=self.episodes,
            iterations=self.iterations,
            only_list=self.list,
            data_root=self.data_root,
        )
