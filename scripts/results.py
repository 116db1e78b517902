"""Make the committed tables: score trained runs on test classes and write results/NAME.json.

    metafilm train configs/omniglot_5way_1shot.yaml
    python scripts/results.py omniglot runs/omniglot_5way_1shot
    metafilm train configs/omniglot.yaml                        # of several seeds, if so wished: --seed 1
    python scripts/results.py omniglot-plain runs/omniglot runs/omniglot-seed1
    metafilm train configs/omniglot_alphabets.yaml
    python scripts/results.py omniglot-alphabets runs/omniglot_alphabets
    metafilm train configs/miniimagenet_5way_5shot.yaml
    python scripts/results.py miniimagenet runs/miniimagenet_5way_5shot
    metafilm train configs/miniimagenet.yaml
    python scripts/results.py miniimagenet-pretrained runs/miniimagenet
    python scripts/results.py sinusoids runs/sinusoids          # trains its runs there first, a few minutes
    python scripts/results.py criteria runs/criteria            # of the runs that are there: says what trains
    python scripts/results.py omniglot-arms runs/omniglot-arms  # likewise, as all that end in -arms
    python scripts/tables.py                                    # puts the tables into the README and docs/

Every row is one run of the test split, with the keys of `metafilm eval --json` and `config`, `command`,
`train_command`, `training_seconds`, `hardware` and `commit`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from metafilm.cli.eval import record  # noqa: E402
from metafilm.config import load_config  # noqa: E402
from metafilm.storage.run import RunDirectory  # noqa: E402
from metafilm.training.run import train  # noqa: E402
from metafilm.training.tracking import Tracker  # noqa: E402
from scripts.records import commit, hardware, made, options, print_row, read, trained_by, write  # noqa: E402
from scripts.rows import ARMS, IMAGE_ROWS, SCORING, SHIPPED_ROWS, SINUSOID_ROWS  # noqa: E402


def image_rows(name: str, runs: Sequence[Path], data_root: Path | None, out: Path) -> list[dict[str, Any]]:
    """Score trainings, which differ by their seed alone, writing `out` after every row; a row of one of these
    very trainings that is there is kept."""
    before = json.loads(out.read_text()) if out.is_file() else []
    kept = {(row["command"], row["training_seconds"]): row for row in before}
    shared = {run: trained_by(run) | {"hardware": hardware()} for run in runs}
    rows = []
    for settings in IMAGE_ROWS[name]:
        for run in runs:
            command = f"metafilm eval {run.as_posix()} {options(settings | SCORING)}"
            place = command, shared[run]["training_seconds"]
            if place not in kept:
                found = record(str(run), data_root=data_root, **settings, **SCORING)
                kept[place] = found | shared[run] | {"command": command, "commit": commit()}
            rows.append(kept[place])
            write(out, rows)
            print_row(rows[-1])
    return rows


def arms_rows(name: str, folder: Path, data_root: Path | None, out: Path) -> list[dict[str, Any]]:
    """Score every arm that is trained, and say how the others are; rows of these very trainings that are
    there are kept."""
    arms = ARMS[name]
    before = json.loads(out.read_text()) if out.is_file() else []
    kept = {(row["command"], row["training_seconds"]): row for row in before}
    rows = []
    for arm in arms.changes:
        run = folder / arm
        train_command = arms.train_command(arm, run)
        if not (run / "results.json").is_file():
            there = [row for row in before if row["setting"]["arm"] == arm]
            rows += there
            if not there:
                print(f"{run} is not trained yet: {train_command}")
            continue
        trained = json.loads((run / "results.json").read_text())
        for settings in arms.rows:
            for more in arms.variants.get(arm, [{}]):
                scoring = settings | more | SCORING
                command = f"metafilm eval {run.as_posix()} {options(scoring)}"
                there = kept.get((command, trained["training_seconds"]))
                if there is not None:
                    rows.append(there)
                    continue
                found = record(str(run), data_root=data_root, **scoring)
                found["checkpoint"] = (run / "model.safetensors").as_posix()
                rows.append(made({"arm": arm}, found, arms.config, train_command, command, trained))
                write(out, [*rows, *(row for row in before if row not in rows)])  # a stop loses none
                print_row(rows[-1])
    write(out, rows)
    return rows


def shipped_rows(name: str, run: Path | None, out: Path, data_root: Path | None) -> list[dict[str, Any]]:
    """Score shipped weights; rows that are there are kept.

    Args:
        run: of the training that other weights than omniglot-conv4 came from; None: their rows are there.
    """
    training = ("config", "train_command", "training_seconds", "training_threads")
    before = json.loads(out.read_text()) if out.is_file() else []
    kept = {row["command"]: row for row in before}
    first = read("omniglot")[0]
    made_by = {"omniglot-conv4": {key: first[key] for key in training}}
    if run is not None:
        made_by[f"{name}-conv4"] = trained_by(run)
    rows = []
    for weights, settings in SHIPPED_ROWS[name]:
        command = f"metafilm eval {weights} {options(settings)}"
        if command not in kept:
            if weights not in made_by:
                sys.exit(f"{command}: name the run directory of its training")
            found = record(weights, data_root=data_root, **settings)
            found["checkpoint"] = str(Path(found["checkpoint"]).relative_to(ROOT))
            kept[command] = found | made_by[weights]
            kept[command] |= {"command": command, "hardware": hardware(), "commit": commit()}
        rows.append(kept[command])
        write(out, rows)
        print_row(rows[-1])
    return rows


def demo_rows(run: Path) -> list[dict[str, Any]]:
    """What a finished `metafilm demo` scored, styles one after the other."""
    trained = json.loads((run / "results.json").read_text())
    rows = []
    for style, found in trained["test"].items():
        flags = f"--style {found['style']} --episodes {found['episodes']} --seed {found['seed']} --split test"
        train_command = f"metafilm train configs/demo.yaml --run-dir {run.as_posix()}"
        command = f"metafilm eval {run.as_posix()} {flags}"
        rows.append(made({"styles": style}, found, "demo", train_command, command, trained))
        print_row(rows[-1])
    return rows


def sinusoid_rows(folder: Path) -> list[dict[str, Any]]:
    base = load_config("sinusoids")
    rows = []
    for row in SINUSOID_ROWS:
        encoder, steps = row["encoder"], row["steps"]
        name = f"encoder-{'on' if encoder else 'off'}-steps-{steps}"
        config = replace(
            base,
            name=name,
            encoder=replace(base.encoder, enabled=encoder),
            inner=replace(base.inner, steps=steps, evaluation_steps=steps),
        ).validate()
        path = folder / name
        with RunDirectory.open(path, config) as run, Tracker(run, config) as tracker:
            trained = train(config, run, tracker)
        flags = f"--name {name} --encoder.enabled {encoder}"
        flags += f" --inner.steps {steps} --inner.evaluation_steps {steps}"
        scoring = "--episodes 1000 --queries 100 --seed 0 --split test"
        found = record(str(path), episodes=1000, queries=100, seed=0, split="test")
        setting = {"encoder": encoder, "inner_steps": steps}
        train_command = f"metafilm train configs/sinusoids.yaml {flags} --run-dir {path.as_posix()}"
        command = f"metafilm eval {path.as_posix()} {scoring}"
        rows.append(made(setting, found, "sinusoids", train_command, command, trained))
        print_row(rows[-1])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*IMAGE_ROWS, *ARMS, *SHIPPED_ROWS, "sinusoids", "demo"])
    parser.add_argument(
        "runs",
        type=Path,
        nargs="*",
        help="run directory, of pictures' rows one for each seed (sinusoids, criteria, NAME-arms: the "
        "folder of the runs; gate: none)",
    )
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None, help="file to write; default: results/NAME.json")
    arguments = parser.parse_args()
    out = arguments.out or ROOT / "results" / f"{arguments.name}.json"
    if arguments.name in SHIPPED_ROWS:
        rows = shipped_rows(arguments.name, next(iter(arguments.runs), None), out, arguments.data_root)
        print(f"{len(rows)} rows in {out}")
        return 0
    if not arguments.runs:
        parser.error(f"{arguments.name} needs a run directory")
    if len(arguments.runs) > 1 and arguments.name not in IMAGE_ROWS:
        parser.error(f"{arguments.name} takes one folder, not {len(arguments.runs)}")
    (run, *_) = arguments.runs
    if arguments.name == "sinusoids":
        rows = sinusoid_rows(run)
        write(out, rows)
    elif arguments.name == "demo":
        rows = demo_rows(run)
        write(out, rows)
    elif arguments.name in ARMS:
        rows = arms_rows(arguments.name, run, arguments.data_root, out)
    else:
        rows = image_rows(arguments.name, arguments.runs, arguments.data_root, out)
    print(f"{len(rows)} rows in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
