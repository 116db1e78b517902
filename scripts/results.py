"""Make the committed tables: score trained runs on test classes and write results/NAME.json.

    metafilm train configs/omniglot_5way_1shot.yaml
    python scripts/results.py omniglot runs/omniglot_5way_1shot
    metafilm train configs/miniimagenet_5way_5shot.yaml
    python scripts/results.py miniimagenet runs/miniimagenet_5way_5shot
    python scripts/results.py sinusoids runs/sinusoids          # trains its runs there first, a few minutes

Every row is one run of the test split, with the keys of `metafilm eval --json` and `config`, `command`,
`train_command`, `training_seconds`, `hardware` and `commit`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metafilm.cli_eval import record
from metafilm.config import Config, load_config
from metafilm.rundir import RunDirectory, atomic_write, finite
from metafilm.tracking import Tracker
from metafilm.training import train

ROOT = Path(__file__).resolve().parent.parent

IMAGE_ROWS: dict[str, list[dict[str, Any]]] = {
    "omniglot": [
        {"ways": 5, "shots": 1, "episodes": 1000},
        {"ways": 5, "shots": 5, "episodes": 1000},
        {"ways": 20, "shots": 1, "episodes": 1000},
        {"ways": 20, "shots": 5, "episodes": 1000},
        {"ways": 5, "shots": 1, "episodes": 1000, "encoder_support": "shuffled"},
        {"ways": 5, "shots": 1, "episodes": 1000, "encoder_support": "none"},
    ],
    "miniimagenet": [
        {"ways": 5, "shots": 5, "episodes": 600},
        {"ways": 5, "shots": 1, "episodes": 600},
        {"ways": 5, "shots": 5, "episodes": 600, "encoder_support": "shuffled"},
        {"ways": 5, "shots": 5, "episodes": 600, "encoder_support": "none"},
    ],
}

# Both halves, either and neither, with one inner step and with five.
SINUSOID_ROWS = [{"encoder": encoder, "steps": steps} for steps in (1, 5) for encoder in (True, False)] + [
    {"encoder": encoder, "steps": 0} for encoder in (True, False)
]


def hardware() -> str:
    """Processor, its cores, and the threads in use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
        model += " with AMX" if "amx_bf16" in cpuinfo.read_text() else ""
    return f"{model}, {os.cpu_count()} cores, no GPU; torch {torch.__version__}"


def commit() -> str:
    """The checkout's commit, marked where files of the packages differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "metafilm", "episodes", "configs", "scripts")
    return git("rev-parse", "HEAD") + ("-dirty" if changed else "")


def image_rows(name: str, run: Path, data_root: Path | None) -> list[dict[str, Any]]:
    trained = json.loads((run / "results.json").read_text())
    config = Config.from_yaml(run / "config.yaml")
    shared = {
        "config": f"configs/{config.name}.yaml",
        "train_command": f"metafilm train configs/{config.name}.yaml --run-dir {run.as_posix()}",
        "training_seconds": trained["training_seconds"],
        "training_threads": trained["threads"],
        "hardware": hardware(),
        "commit": commit(),
    }
    rows = []
    for settings in IMAGE_ROWS[name]:
        found = record(
            str(run), queries=15, seed=0, split="test", data_root=data_root, progress=True, **settings
        )
        flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in settings.items())
        command = f"metafilm eval {run.as_posix()} {flags} --queries 15 --seed 0 --split test"
        rows.append(found | shared | {"command": command})
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
        found = record(str(path), episodes=1000, queries=100, seed=0, split="test", progress=True)
        rows.append(
            {"setting": {"encoder": encoder, "inner_steps": steps}}
            | found
            | {
                "config": "configs/sinusoids.yaml",
                "train_command": f"metafilm train configs/sinusoids.yaml {flags} --run-dir {path.as_posix()}",
                "command": f"metafilm eval {path.as_posix()} {scoring}",
                "training_seconds": trained["training_seconds"],
                "training_threads": trained["threads"],
                "hardware": hardware(),
                "commit": commit(),
            }
        )
        print_row(rows[-1])
    return rows


def print_row(row: dict[str, Any]) -> None:
    measure = "mse" if "mse" in row else "accuracy"
    print(row["command"], f"{row[measure]:.4f} ± {row['ci95']:.4f}", row[f"{measure}_by_step"], flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*IMAGE_ROWS, "sinusoids"])
    parser.add_argument("run", type=Path, help="run directory (sinusoids: the folder of its runs)")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None, help="file to write; default: results/NAME.json")
    arguments = parser.parse_args()
    if arguments.name == "sinusoids":
        rows = sinusoid_rows(arguments.run)
    else:
        rows = image_rows(arguments.name, arguments.run, arguments.data_root)
    out = arguments.out or ROOT / "results" / f"{arguments.name}.json"
    atomic_write(out, (json.dumps(finite(rows), indent=2) + "\n").encode())
    print(f"{len(rows)} rows in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
