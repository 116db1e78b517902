"""What takes whole processes: importing the package, and training in two of them."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from . import ours
from .records import Record, Run, build
from .rounds import Samples, System, say
from .tasks import TRAIN_28

ROOT = Path(__file__).resolve().parents[2]
ONE, TWO = "one-process", "metafilm"
ITERATIONS, FIRST, LAST = 21, 1, 20  # of a scaling run, and between which it is timed


def _nothing() -> None:
    """These systems run in processes of their own."""


def importing(run: Run, rounds: int | None = None) -> list[Record]:
    """Seconds that `import metafilm` adds to `import torch`, fresh processes in turn."""
    statements = {"torch": "import torch", "both": "import torch, metafilm"}
    times: dict[str, list[float]] = {name: [] for name in statements}
    rounds = rounds or 9
    say("import: 2 processes a round")
    for number in range(-1, rounds):  # the first reads the files into memory
        for name, statement in statements.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True)
            if number >= 0:
                times[name].append(time.perf_counter() - begin)
    added = [both - torch for both, torch in zip(times["both"], times["torch"], strict=True)]
    note = (
        f"seconds beyond `import torch` (median {statistics.median(times['torch']):.2f} s with the "
        "interpreter's start), each round's own difference"
    )
    samples: Samples = {("metafilm", "float32"): added}
    return build(run, "import", [System("metafilm", _nothing, 1, note=note)], samples)


def scaling(run: Run, rounds: int | None = None) -> list[Record]:
    """Seconds per task of `metafilm train` in one process and in two, each with the same threads; runs in
    turn, over generated strokes."""
    if importlib.util.find_spec("metafilm.engine.distributed") is None:
        say("scale-2: skipped, this checkout has no metafilm.engine.distributed")
        return []
    samples: Samples = {(TWO, "float32"): [], (ONE, "float32"): []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scaling.yaml"
        path.write_text(yaml.safe_dump(_config(run.threads)))
        for number in range(rounds or 3):
            for name, processes in ((TWO, 2), (ONE, 1)):
                say(f"  round {number + 1}: {processes} process{'es' if processes > 1 else ''}")
                directory = Path(folder) / f"{name}-{number}"
                samples[name, "float32"].append(_train(path, directory, processes, run.threads))
    note = (
        f"wall time of iterations {FIRST + 1} to {LAST} per task of the whole meta-batch ({TRAIN_28.tasks}), "
        "strokes 28x28, 5-way 1-shot, 15 queries, 2 inner steps, second order"
    )
    systems = [
        System(TWO, _nothing, TRAIN_28.tasks, note=f"two processes, {run.threads} threads each, gloo"),
        System(ONE, _nothing, TRAIN_28.tasks, note=f"one process, {run.threads} threads"),
    ]
    return build(run, "scale-2", systems, samples, note)


def _config(threads: int) -> dict:
    """train-28 over generated strokes, with as little validation as there can be."""
    config = ours.config(TRAIN_28).to_dict()
    config |= {"name": "scaling", "threads": threads}
    config["data"]["name"] = "strokes"
    config["outer"]["iterations"] = ITERATIONS
    config["evaluation"] |= {"every": ITERATIONS, "episodes": 4, "checkpoint_every_seconds": 3600.0}
    return config


def _train(config: Path, directory: Path, processes: int, threads: int) -> float:
    """Seconds per task, from the run's own metrics.

    Raises:
        RuntimeError: the run failed; with the last of what it said.
    """
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*start, "-m", "metafilm", "train", str(config), "--run-dir", str(directory)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"training in {processes} processes failed: {done.stderr.strip()[-2000:]}")
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    seconds = {record["iteration"]: record["seconds"] for record in map(json.loads, lines)}
    return (seconds[LAST] - seconds[FIRST]) / (LAST - FIRST) / TRAIN_28.tasks
