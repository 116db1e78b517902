"""What a committed record says of itself: on what it was measured, of which code, by which command; and the
files of them."""

import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from metafilm.config import Config
from metafilm.storage.atomic import atomic_write, finite

ROOT = Path(__file__).resolve().parent.parent


def hardware(device: str = "cpu") -> str:
    """Processor and cores, and the GPU where `device` is one."""
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
    gpu = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {gpu}; torch {torch.__version__}"


def commit() -> str:
    """The checkout's commit, marked where files of the packages differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "metafilm", "episodes", "configs", "scripts")
    return git("rev-parse", "HEAD") + ("-dirty" if changed else "")


def options(settings: dict[str, Any]) -> str:
    """Settings as the command line has them."""
    words = []
    for key, value in settings.items():
        words.append(f"--{key.replace('_', '-')}")
        words += [] if value is True else map(str, value) if isinstance(value, tuple) else [str(value)]
    return " ".join(words)


def made(
    setting: dict[str, Any],
    found: dict[str, Any],
    config: str,
    train_command: str,
    command: str,
    trained: dict[str, Any],
) -> dict[str, Any]:
    """A row: what was scored, and how it can be had again. ``trained``: the run's own results."""
    return {
        "setting": setting,
        **found,
        "config": f"configs/{config}.yaml",
        "train_command": train_command,
        "command": command,
        **of_training(trained),
        "hardware": hardware(),
        "commit": commit(),
    }


def trained_by(run: Path) -> dict[str, Any]:
    """What a row says of its training."""
    trained = json.loads((run / "results.json").read_text())
    config = Config.from_yaml(run / "config.yaml")
    seed = f" --seed {config.seed}" if config.seed else ""
    return {
        "config": f"configs/{config.name}.yaml",
        "train_command": f"metafilm train configs/{config.name}.yaml{seed} --run-dir {run.as_posix()}",
        "training_seed": config.seed,
        **of_training(trained),
    }


def of_training(trained: dict[str, Any]) -> dict[str, Any]:
    """What a row takes from a run's own results; `training_commit`: of the code that the training ended with,
    which is seldom that of the scores (None: not kept)."""
    return {
        "training_seconds": trained["training_seconds"],
        "training_threads": trained["threads"],
        "training_commit": trained.get("environment", {}).get("commit"),
    }


def read(name: str) -> list[dict[str, Any]]:
    """The committed records of that name."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def write(path: Path, rows: Sequence[Any]) -> None:
    """Records, as the files under results/ have them."""
    atomic_write(path, (json.dumps(finite(list(rows)), indent=2, ensure_ascii=False) + "\n").encode())


def put(
    path: Path, rows: Sequence[Any], key: Callable[[Any], Any], ordered: bool = True
) -> list[dict[str, Any]]:
    """Write records into a file, in the place of earlier ones with the same key; all that it then holds.

    Args:
        ordered: by their keys; else as they came.
    """
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    both = {key(row): row for row in [*old, *rows]}
    found = [both[one] for one in (sorted(both) if ordered else both)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, found)
    return found


def print_row(row: dict[str, Any]) -> None:
    measure = "mse" if "mse" in row else "accuracy"
    print(row["command"], f"{row[measure]:.4f} ± {row['ci95']:.4f}", row[f"{measure}_by_step"], flush=True)
