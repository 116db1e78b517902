"""Rows of mixtures, kinds of functions and styles of pictures: results/functions.json, results/styles.json.

    python scripts/mixtures.py functions runs/functions     # trains its runs there first
    python scripts/mixtures.py functions runs/functions --kinds 2 --arm encoder+steps
    python scripts/mixtures.py styles runs/styles           # likewise; an hour and more a run

Functions: MMAML's mixtures of 2, 3 and 5 kinds (configs/functions.yaml), 5 support and 5 query points, both
with noise, with both halves of the method and with either. Styles: miniImageNet, each task through one filter
(configs/styles.yaml), the full method, prototypes of a network that likewise normalises each task by its own
support set, plain prototypes, all of the same training, and the last one's weights normalised by the support
in the test alone, on test classes in the filters of the training and in others; differences are paired.

A run that is there is not trained again, and one that was stopped goes on; rows of these very trainings are
kept. Rows have the keys of scripts/results.py.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from metafilm.cli.commands import parse  # noqa: E402
from metafilm.cli.eval import record  # noqa: E402
from metafilm.cli.options import Train, filled_in  # noqa: E402
from metafilm.evaluation import interval  # noqa: E402
from metafilm.storage.run import RunDirectory  # noqa: E402
from metafilm.training.run import train  # noqa: E402
from metafilm.training.tracking import Tracker  # noqa: E402
from scripts.records import made, options, print_row, write  # noqa: E402

KINDS = (2, 3, 5)
# Changes to the configuration; the full method comes first.
ARMS: dict[str, dict[str, str]] = {
    "functions": {"encoder+steps": "", "encoder": "--inner.steps 0", "steps": "--encoder.enabled False"},
    "styles": {
        "full": "",
        "support-statistics": "--encoder.enabled False --inner.steps 0",
        "prototypes": "--backbone.norm running --encoder.enabled False --inner.steps 0",
    },
}
SCORED: dict[str, tuple[str, dict[str, str]]] = {
    "full": ("full", {}),
    "support-statistics": ("support-statistics", {}),
    "prototypes-by-support": ("prototypes", {"norm": "support"}),
    "prototypes": ("prototypes", {}),
}
"""What is scored of styles: of which arm's training, and how judged; the later ones are what the others are
held against."""
STYLES = ("known-filters", "unseen-filters")
EPISODES = {"functions": 10_000, "styles": 2000}


def trained(name: str, changes: str, run: Path) -> tuple[str, dict[str, Any]]:
    """Train, unless the run is finished; the command that does the same, and what the run reported.

    Raises:
        RunError: the run has other settings.
    """
    command = f"metafilm train configs/{name}.yaml {changes}".strip() + f" --run-dir {run.as_posix()}"
    words = shlex.split(command)[1:]
    words[1] = str(ROOT / words[1])
    asked = parse(words)
    assert isinstance(asked, Train)
    config = filled_in(asked.settings)
    with RunDirectory.open(run, config) as directory:
        results = directory.read_results()
        if results is None:
            with Tracker(directory, config) as tracker:
                results = train(config, directory, tracker)
    return command, results


def scored(run: Path, flags: dict[str, Any]) -> tuple[str, dict[str, Any], list[float]]:
    """The command, its record, and the score of each task."""
    each: list[list[float]] = []
    found = record(str(run), per_task=each, **flags)
    found["checkpoint"] = (run / "model.safetensors").as_posix()
    return f"metafilm eval {run.as_posix()} {options(flags)}", found, each[0]


def function_rows(arguments: argparse.Namespace, kept: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kinds in arguments.kinds:
        for arm in arguments.arm or ARMS["functions"]:
            data = f"functions-{kinds}"
            run = arguments.folder / f"{data}-{arm}"
            changes = f"--name {run.name} --data.name {data} {ARMS['functions'][arm]}".strip()
            train_command, results = trained("functions", changes, run)
            flags = {"episodes": arguments.episodes, "queries": 5, "seed": 0, "split": arguments.split}
            command = f"metafilm eval {run.as_posix()} {options(flags)}"
            row = kept.get(command)
            if row is None or row["training_seconds"] != results["training_seconds"]:
                command, found, _ = scored(run, flags)
                setting = {"kinds": kinds, "encoder": arm != "steps", "inner_steps": found["steps"]}
                row = made(setting, found, "functions", train_command, command, results)
            yield row


def style_rows(arguments: argparse.Namespace, kept: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each also with ``over``: what it has over those after it in ``SCORED``, by their names, in points on
    the same tasks, and the half width of its interval.

    All are scored anew, since the differences need the score of each task.
    """
    commands = {
        arm: trained("styles", f"--name {arm} {changes}".strip(), arguments.folder / arm)
        for arm, changes in ARMS["styles"].items()
    }
    for style in STYLES:
        scores: dict[str, list[float]] = {}
        made_here = {}
        for arm, (training, judged) in reversed(SCORED.items()):  # plain prototypes first
            train_command, results = commands[training]
            flags = {"ways": 5, "shots": arguments.shots, "queries": 15, "episodes": arguments.episodes}
            flags |= {"style": style, "seed": 0, "split": arguments.split, **judged}
            command, found, each = scored(arguments.folder / training, flags)
            row = made({"arm": arm}, found, "styles", train_command, command, results)
            row["over"] = {}
            for other in reversed(scores):
                gains = [a - b for a, b in zip(each, scores[other], strict=True)]
                row["over"][other] = [sum(gains) / len(gains), interval(gains)]
            scores[arm], made_here[arm] = each, row
        yield from (made_here[arm] for arm in SCORED)


def merged(before: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of before, but for those that were made anew."""
    new = {row["command"] for row in rows}
    return [*(row for row in before if row["command"] not in new), *rows]


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=list(ARMS))
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--kinds", nargs="+", type=int, choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--arm", nargs="+", choices=list(ARMS["functions"]), help="of functions; default: all"
    )
    parser.add_argument("--shots", type=int, default=5, help="of styles")
    parser.add_argument("--episodes", type=int, default=None)
    parser.add_argument(
        "--split", default="test", help="val while something is still to be chosen, with an --out"
    )
    parser.add_argument("--out", type=Path, default=None, help="file to write; default: results/NAME.json")
    arguments = parser.parse_args(words)
    if arguments.out is None and (arguments.split, arguments.shots, arguments.episodes) != ("test", 5, None):
        parser.error(
            f"results/{arguments.name}.json is of the usual tasks of the test split; give others an --out"
        )
    arguments.episodes = arguments.episodes or EPISODES[arguments.name]
    arguments.out = arguments.out or ROOT / "results" / f"{arguments.name}.json"
    return arguments


def main(words: list[str] | None = None) -> int:
    arguments = parsed(words)
    before = json.loads(arguments.out.read_text()) if arguments.out.is_file() else []
    kept = {row["command"]: row for row in before}
    rows = []
    for row in (function_rows if arguments.name == "functions" else style_rows)(arguments, kept):
        rows.append(row)
        write(arguments.out, merged(before, rows))  # a stop loses none
        print_row(row)
    print(f"{len(merged(before, rows))} rows in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
