"""Every committed number says how it was obtained, and can be obtained again."""

import json
import math
from pathlib import Path

import pytest

from metafilm.cli import commands as cli
from metafilm.config import load_config

ROOT = Path(__file__).resolve().parent.parent
RECORDS = [
    (file.name, row)
    for file in sorted((ROOT / "results").glob("*.json"))
    for row in json.loads(file.read_text())
]
KEYS = set(
    "dataset split ways shots queries episodes seed ci95 protocol checkpoint wall_seconds stages steps "
    "encoder_support config command train_command training_seconds hardware commit".split()
)


def test_there_are_results():
    assert {name for name, _ in RECORDS} >= {"omniglot.json", "miniimagenet.json", "sinusoids.json"}


@pytest.mark.parametrize(("name", "row"), RECORDS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(RECORDS)])
def test_record_is_complete_and_consistent(name, row):
    measure = "mse" if name == "sinusoids.json" else "accuracy"
    assert set(row) >= KEYS | {measure, f"{measure}_by_step"}
    assert row["split"] == "test"
    assert row["protocol"] == "inductive"
    assert math.isclose(row[f"{measure}_by_step"][-1], row[measure])
    assert len(row[f"{measure}_by_step"]) == len(row["stages"]) == len(row["ci95_by_step"])
    assert row["ci95"] > 0
    assert len(row["commit"].removesuffix("-dirty")) == 40
    if name == "sinusoids.json":
        assert set(row["setting"]) == {"encoder", "inner_steps"}


@pytest.mark.parametrize(("name", "row"), RECORDS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(RECORDS)])
def test_record_can_be_run_again(name, row, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load_config(row["config"]).name
    for key in ("train_command", "command"):
        words = row[key].split()
        assert words[0] == "metafilm"
        assert cli.parse(words[1:]) is not None
    evaluation = cli.parse(row["command"].split()[1:])
    assert (evaluation.episodes, evaluation.seed, evaluation.split) == (row["episodes"], row["seed"], "test")
