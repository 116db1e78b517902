"""A run killed at any moment and resumed equals the uninterrupted one, to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from metafilm.config.config import Config
from metafilm.storage.run import RunDirectory
from metafilm.training import run as training
from metafilm.training.run import train
from metafilm.training.tracking import Tracker

ITERATIONS = 14

# Trains the run whose settings stand in a file, and waits inside one iteration until a file says go on.
SCRIPT = """
import json, pathlib, sys, time
from metafilm.training import outer_loop
from metafilm.training import run as training
from metafilm.config.config import Config
from metafilm.storage.run import RunDirectory
from metafilm.training.tracking import Tracker

settings, folder, root, until, go = sys.argv[1:]
config = Config.from_dict(json.load(open(settings)))
step = outer_loop.OuterLoop.step

def waiting(self, episodes):
    while self.iteration == int(until) and not pathlib.Path(go).exists():
        time.sleep(0.02)
    return step(self, episodes)

outer_loop.OuterLoop.step = waiting
with RunDirectory.open(folder, config) as run:
    try:
        training.train(config, run, Tracker(run, config), root)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Pictures of four training and three validation classes."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for split, classes in (("train", 4), ("val", 3)):
        for c in range(classes):
            where = folder / split / f"{split}{c}"
            where.mkdir(parents=True)
            pattern = generator.integers(0, 200, (16, 16, 3))
            for i in range(6):
                noisy = pattern + generator.integers(0, 55, (16, 16, 3))
                Image.fromarray(noisy.astype(np.uint8)).save(where / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def settings(data: Path) -> dict:
    return {
        "name": "resume",
        "threads": 1,
        "data": {"name": f"folder:{data}", "image_size": 16},
        "episodes": {"ways": 3, "shots": [1, 2], "queries": 2, "augment": "shift"},
        "backbone": {"width": 4},
        "encoder": {"width": 6},
        "inner": {"steps": 1, "start": 0.3},
        "outer": {
            "iterations": ITERATIONS,
            "meta_batch": 2,
            "task_chunk": 1,  # left open it is measured, and two fresh runs may choose differently
            "learning_rate": 0.01,
            "warmup": 3,
            "auxiliary": 0.5,
            "film_noise": 0.2,
            "average": 0.9,
        },
        "evaluation": {"every": 5, "episodes": 4, "checkpoint_every_seconds": 0.0},
    }


def run_here(folder: Path, settings: dict, root: Path) -> None:
    config = Config.from_dict(settings)
    with RunDirectory.open(folder, config) as run, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*overfits its training classes")
        train(config, run, Tracker(run, config), root, progress=False)


def iteration(folder: Path) -> int:
    state = RunDirectory(folder).load_checkpoint()
    return 0 if state is None else state["iteration"]


def go(folder: Path) -> Path:
    return folder.with_suffix(".go")


def start(folder: Path, settings: dict, root: Path, until: int) -> subprocess.Popen:
    """A process that trains, with `until` iterations on the disk, waiting inside the next."""
    file = folder.with_suffix(".json")
    file.write_text(json.dumps(settings))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file), str(folder), str(root), str(until), str(go(folder))],
        env=os.environ | {"OMP_NUM_THREADS": "1", "METAFILM_PROGRESS": "never"},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 300
    while iteration(folder) < until:
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            process.kill()
            what = "not yet there" if ended is None else f"ended with {ended}"
            pytest.fail(f"iteration {until}: {what}: {process.communicate()[1].decode()}")
        time.sleep(0.05)
    return process


@pytest.fixture(scope="module")
def runs(tmp_path_factory, settings: dict) -> dict[str, Path]:
    """`whole`: uninterrupted. `broken`: killed with -9 in iteration 5, resumed, stopped by Ctrl-C in the
    tenth, resumed to the end."""
    folder = tmp_path_factory.mktemp("runs")
    root = tmp_path_factory.mktemp("root")
    whole, broken = folder / "whole", folder / "broken"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "keep_freed_memory", lambda: None)  # it would last for the other tests
        run_here(whole, settings, root)
        killed = start(broken, settings, root, 4)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        killed.communicate()
        after_kill = iteration(broken)
        # half a line, as a kill in the middle of a write leaves it
        with (broken / "metrics.jsonl").open("a") as file:
            file.write('{"iteration": 5, "lo')
        stopped = start(broken, settings, root, 9)
        stopped.send_signal(signal.SIGINT)
        time.sleep(0.2)
        go(broken).touch()
        _, errors = stopped.communicate(timeout=300)
        after_stop = iteration(broken)
        run_here(broken, settings, root)
    return {
        "whole": whole,
        "broken": broken,
        "interruptions": (after_kill, after_stop),
        "code": stopped.returncode,
        "errors": errors.decode(),
    }  # type: ignore[return-value]


def test_it_was_interrupted_in_the_middle(runs) -> None:
    after_kill, after_stop = runs["interruptions"]
    assert after_kill == 4
    assert after_stop == 10, "the iteration under way ends before the checkpoint"


def test_ctrl_c_ends_the_step_and_saves(runs) -> None:
    assert runs["code"] == 130, runs["errors"]


def same(first, second, where: str) -> None:
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key, value in first.items():
            same(value, second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            same(one, other, f"{where}[{i}]")
    else:
        assert first == second, where


def test_weights_optimiser_and_average(runs) -> None:
    states = [RunDirectory(runs[name]).load_checkpoint() for name in ("whole", "broken")]
    for state in states:
        assert state["iteration"] == ITERATIONS
        assert state["optimiser"]["state"] and state["average"]["updates"] == ITERATIONS
        del state["seconds"]
    same(*states, "checkpoint")


def test_best_weights(runs) -> None:
    first, second = (load_file(runs[name] / "model.safetensors") for name in ("whole", "broken"))
    same(first, second, "model")


def test_metrics(runs) -> None:
    logged = [RunDirectory(runs[name]).read_metrics() for name in ("whole", "broken")]
    for records in logged:
        assert [record["iteration"] for record in records] == [1, 5, 10, ITERATIONS]
        seconds = [record.pop("seconds") for record in records]
        for record in records:
            record.pop("validation_seconds", None)
        assert seconds == sorted(seconds)
    assert "validation_accuracy" in logged[0][1]
    same(*logged, "metrics")


def test_a_finished_run_stays_as_it_is(runs, settings, tmp_path) -> None:
    before = (runs["whole"] / "checkpoint.pt").read_bytes()
    run_here(runs["whole"], settings, tmp_path)
    assert (runs["whole"] / "checkpoint.pt").read_bytes() == before
    assert RunDirectory(runs["whole"]).read_results()["iterations"] == ITERATIONS
