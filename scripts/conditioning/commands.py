"""What a system's script does by command: `train` an arm, `list` the runs, `write` their records."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from metafilm.errors import MetafilmError
from scripts import device
from scripts.conditioning import committed, running

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class System:
    """One of the systems.

    Args:
        name: of its configuration, its records and its folder of runs.
        usual: its settings where nobody says otherwise.
        train: settings, the run's folder, the arm's name -> what is kept of the run: `scores`, by split and
            metric, a `value` and its `ci95`; `parameters`, `training_seconds`; `beside`, numbers that stand
            in every record.
        over: what the interval of one run is over.
        tested_on: how many test examples there are, in words.
        combine: all runs -> records of several together, beside each run's own.
        test: the folder of runs -> scores those on test examples that are not yet, before `write`; None:
            `train` does it.
        arm: that is trained where none is named.
        more: other commands: their name -> a function of the options and the finished runs.
    """

    name: str
    usual: running.Plan
    train: Callable[[Any, Path, str], dict[str, Any]]
    over: str
    tested_on: str
    combine: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda _: []
    test: Callable[[Path], None] | None = None
    arm: str = "film"
    more: Mapping[str, Callable[[argparse.Namespace, list[dict[str, Any]]], None]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.script = f"scripts/conditioning/{self.name.replace('-', '_')}.py"
        self.config = ROOT / "configs" / "conditioning" / f"{self.name}.yaml"
        self.out = ROOT / "results" / "conditioning" / f"{self.name}.json"

    def settings(self, arm: str, changes: Sequence[str] = ()) -> Any:
        """The settings of an arm, changed. Raises ConfigError as `running.settings_of` does."""
        return running.settings_of(self.config, self.usual, arm, changes)

    def parsed(self, about: str | None, arguments: list[str]) -> argparse.Namespace:
        """What the command line asks for."""
        parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
        said = "train an arm, list the finished runs, write their records"
        pictures = f", or make pictures: {', '.join(self.more)}" if self.more else ""
        parser.add_argument("do", choices=("list", "train", "write", *self.more), help=said + pictures)
        parser.add_argument("--arm", default=self.arm, help=f"one of {self.config_said} (default {self.arm})")
        parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default 0)")
        parser.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; may be repeated"
        )
        runs = Path("runs") / self.name
        parser.add_argument("--runs", type=Path, default=runs, help=f"where runs are kept (default {runs})")
        parser.add_argument("--threads", type=int, default=0, help="of the processor; 0: PyTorch's choice")
        parser.add_argument(
            "--device", choices=device.NAMES, default="auto", help="auto: a GPU where there is one"
        )
        return parser.parse_args(arguments)

    def start(self, about: str | None) -> None:
        """As a script: `main`, an error as one line, and Ctrl-C too."""
        try:
            self.main(sys.argv[1:], about)
        except MetafilmError as error:
            raise SystemExit(str(error)) from None
        except KeyboardInterrupt:
            raise SystemExit("interrupted") from None

    def main(self, arguments: list[str], about: str | None = None) -> None:
        """Do what the command line asks for. Raises MetafilmError where it can't."""
        options = self.parsed(about, arguments)
        if options.threads:
            torch.set_num_threads(options.threads)
        device.choose(options.device)
        if options.do == "write" and self.test is not None:
            self.test(options.runs)
        found = [json.loads(path.read_text()) for path in sorted(options.runs.glob("*/scores.json"))]
        if options.do == "train":
            settings = self.settings(options.arm, [f"seed={options.seed}", *options.set])
            folder = self.folder(options.runs, options.arm, options.seed, options.set)
            print("validation:", said(self.run(settings, folder, options.arm)["scores"]["val"]))
        elif options.do == "list":
            if not found:
                print(f"no finished runs in {options.runs}")
            for one in found:
                changed = "".join(f", {k}={v}" for k, v in self.changed(one).items())
                seed = one["settings"]["seed"]
                print(f"{one['arm']}{changed}, seed {seed}: {said(one['scores']['val'])}")
        elif options.do == "write":
            if not found:
                raise MetafilmError(
                    f"no finished runs in {options.runs}; train some, or name their folder by --runs"
                )
            found = [one for one in found if "test" in one["scores"]]  # a run may have ended just now
            rows = self.records(committed.not_joined(self.out, found))
            committed.put(self.out, [*rows, *self.combine(found)])
        else:
            try:
                self.more[options.do](options, found)
            except ModuleNotFoundError as error:
                if error.name != "matplotlib":
                    raise
                raise MetafilmError(f"{options.do} needs matplotlib; pip install 'metafilm[plots]'") from None

    def folder(self, runs: Path, arm: str, seed: int, changes: Sequence[str] = ()) -> Path:
        """Where a run is kept: named by those of its settings that are not its arm's, however that was
        said."""
        changed = self.changed({"arm": arm, "settings": asdict(self.settings(arm, changes))})
        named = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in changed.items()]
        return runs / "-".join([arm, *named, f"seed={seed}"]).replace("/", "_")

    def run(self, settings: running.Plan, folder: Path, arm: str) -> dict[str, Any]:
        """Train a run, or go on with it, and score it; what is kept of it, in the folder too."""
        found = {
            "arm": arm,
            "settings": asdict(settings),
            **self.train(settings, folder, arm),
            **running.made_with(),
        }
        running.keep(folder / "scores.json", found)
        return found

    def changed(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a run that are not its arm's; not the seed."""
        usual = asdict(self.settings(one["arm"]))
        mine = one["settings"].items()
        return {k: v for k, v in mine if k != "seed" and json.dumps(v) != json.dumps(usual[k])}

    def records(self, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Of all runs: those that differ in their seed alone make one record a metric.

        Raises:
            MetafilmError: two runs of the same settings and seed.
        """
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for one in found:
            setting = {k: v for k, v in one["settings"].items() if k != "seed"}
            groups.setdefault(json.dumps([one["arm"], setting], sort_keys=True), []).append(one)
        made = []
        for group in groups.values():
            group.sort(key=lambda one: one["settings"]["seed"])
            first = group[0]
            arm = first["arm"]
            seeds = [one["settings"]["seed"] for one in group]
            if len(set(seeds)) < len(seeds):
                raise MetafilmError(
                    f"arm {arm} has two runs of the same settings and seed among {seeds}; remove one's folder"
                )
            command = f"python {self.script} train --arm {arm} --seed {seeds[0]}"
            for name, value in self.changed(first).items():
                command += " --set " + shlex.quote(f"{name}={json.dumps(value)}")
            command = committed.for_seeds(command, seeds[:1], seeds)
            setting = {k: v for k, v in first["settings"].items() if k != "seed"}
            for metric in first["scores"]["test"]:
                runs = [
                    {
                        "seed": one["settings"]["seed"],
                        **one["scores"]["test"][metric],
                        **one.get("beside", {}),
                        "scored": one.get("scored"),
                        **{k: one[k] for k in ("parameters", "training_seconds", "hardware", "commit")},
                    }
                    for one in group
                ]
                row = committed.record(self.name, arm, setting, metric, runs, command, self.over)
                made.append(self.completed(row))
        return made

    def completed(self, row: dict[str, Any]) -> dict[str, Any]:
        """A record with what is the same for all of the system's: its configuration, and what it was
        tested on."""
        return {**row, "tested_on": self.tested_on, "config": self.config_said}

    @property
    def config_said(self) -> str:
        """The configuration as it is named to people, from the checkout on."""
        inside = self.config.is_relative_to(ROOT)
        return (self.config.relative_to(ROOT) if inside else self.config).as_posix()


def systems() -> dict[str, System]:
    """All there are, by name: each configuration has its script."""
    names = sorted(path.stem for path in (ROOT / "configs" / "conditioning").glob("*.yaml"))
    scripts = {name: import_module(f"scripts.conditioning.{name.replace('-', '_')}") for name in names}
    return {name: script.SYSTEM for name, script in scripts.items()}


def said(scores: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {score['value']:.2f}" for name, score in scores.items())
