"""Every committed number says how it was obtained, and can be obtained again."""

import json
import math
from pathlib import Path

import pytest

from metafilm.cli import commands as cli
from metafilm.config import load_config
from scripts.adaptation import NETWORKS, parsed, rows
from scripts.results import CRITERIA_ARMS

ROOT = Path(__file__).resolve().parent.parent
ALL = [
    (file.name, row)
    for file in sorted((ROOT / "results").glob("*.json"))
    for row in json.loads(file.read_text())
]
RECORDS = [(name, row) for name, row in ALL if name not in ("adaptation.json", "architectures.json")]
ADAPTATION = [row for name, row in ALL if name == "adaptation.json"]
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
    if name == "criteria.json":
        assert row["setting"]["arm"] in CRITERIA_ARMS and len(row["by_domain"]) > 1


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


def test_adaptation_is_paired_and_can_be_run_again():
    keys = set(
        "backbone dataset ways shots arm steps accuracy ci95 gain gain_ci95 episodes seed seconds_per_task "
        "hardware commit command protocol split".split()
    )
    known = {(row.backbone, row.dataset, row.shots, row.arm) for row in rows(parsed(["list"]))}
    found = {}
    for row in ADAPTATION:
        assert set(row) >= keys and row["split"] == "test" and row["protocol"] == "inductive"
        assert row["episodes"] >= 100 and row["ci95"] > 0 and len(row["commit"]) == 40
        name = (row["backbone"], row["dataset"], row["shots"], row["arm"])
        assert name in known and name not in found
        found[name] = row
        words = row["command"].split()
        assert words[:2] == ["python", "scripts/adaptation.py"]
        (again,) = rows(parsed(words[2:]))
        assert (again.backbone, again.dataset, again.shots, again.arm) == name
    for (backbone, dataset, shots, _), row in found.items():
        base = found[backbone, dataset, shots, "identity"]
        assert math.isclose(row["gain"], row["accuracy"] - base["accuracy"], abs_tol=1e-9)
        assert row["episodes"] == base["episodes"] and dataset in NETWORKS[backbone].datasets
