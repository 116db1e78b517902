"""Every committed number says how it was obtained, and can be obtained again."""

import json
import math
import statistics
from functools import cache
from pathlib import Path

import pytest

from metafilm.cli import commands as cli
from metafilm.config import load_config
from metafilm.learner.build import load_learner
from scripts import cards, reuse
from scripts.adaptation import parsed, rows
from scripts.adapting.arms import NETWORKS, RUNS, trained_by
from scripts.mixtures import SCORED, STYLES
from scripts.probabilities import command as probabilities_command
from scripts.probabilities import parsed as probabilities_options
from scripts.probabilities import put
from scripts.probabilities import record as probabilities
from scripts.rows import ARMS

ROOT = Path(__file__).resolve().parent.parent
ALL = [
    (file.name, row)
    for file in sorted((ROOT / "results").glob("*.json"))
    for row in json.loads(file.read_text())
]
OTHERS = (
    "adaptation.json",
    "architectures.json",
    "compare.json",
    "functions-floor.json",
    "laboratory.json",
    "probabilities.json",
    "projection.json",
    "reuse.json",
    "sweeps.json",
)
RECORDS = [(name, row) for name, row in ALL if name not in OTHERS]
PROBABILITIES = [row for name, row in ALL if name == "probabilities.json"]
ADAPTATION = [row for name, row in ALL if name == "adaptation.json"]
KEYS = set(
    "dataset split ways shots queries episodes seed ci95 protocol checkpoint wall_seconds stages steps "
    "encoder_support config command train_command training_seconds hardware commit".split()
)


def test_there_are_results():
    assert {name for name, _ in RECORDS} >= {"omniglot.json", "miniimagenet.json", "sinusoids.json"}


@pytest.mark.parametrize(("name", "row"), RECORDS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(RECORDS)])
def test_record_is_complete_and_consistent(name, row):
    measure = "mse" if name in ("sinusoids.json", "functions.json") else "accuracy"
    assert set(row) >= KEYS | {measure, f"{measure}_by_step"}
    assert row["split"] == "test"
    assert row["protocol"] == "inductive"
    assert math.isclose(row[f"{measure}_by_step"][-1], row[measure])
    assert len(row[f"{measure}_by_step"]) == len(row["stages"]) == len(row["ci95_by_step"])
    assert row["ci95"] > 0
    assert len(row["commit"].removesuffix("-dirty")) == 40
    if name == "sinusoids.json":
        assert set(row["setting"]) == {"encoder", "inner_steps"}
    if name == "functions.json":
        assert set(row["setting"]) == {"kinds", "encoder", "inner_steps"} and row["queries"] == 5
    if name == "styles.json":
        assert row["setting"]["arm"] in SCORED and row["style"] in STYLES
    if name == "criteria.json":
        assert len(row["by_domain"]) > 1
    stem = name.removesuffix(".json")
    if stem in ARMS:
        assert row["setting"]["arm"] in ARMS[stem].changes
        assert len(row["gain_by_step"]) > 1 or not stem.endswith("-arms")


@cache
def asked(command):
    """What a command line means; many rows share one."""
    return cli.parse(command.split()[1:])


@pytest.mark.parametrize(("name", "row"), RECORDS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(RECORDS)])
def test_record_can_be_run_again(name, row, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load_config(row["config"]).name
    for key in ("train_command", "command"):
        assert row[key].startswith("metafilm ")
        assert asked(row[key]) is not None
    evaluation = asked(row["command"])
    assert (evaluation.episodes, evaluation.seed, evaluation.split) == (row["episodes"], row["seed"], "test")


def test_the_floor_of_functions_is_of_the_same_tasks():
    floors = [row for name, row in ALL if name == "functions-floor.json"]
    trained = {row["dataset"]: row for name, row in ALL if name == "functions.json" and row["steps"]}
    assert [row["setting"]["kinds"] for row in floors] == [2, 3, 5]
    for row in floors:
        other = trained[row["dataset"]]
        same = ("split", "shots", "queries", "seed", "episodes")
        assert {name: row[name] for name in same} == {name: other[name] for name in same}
        assert row["mse"] + row["above"] == pytest.approx(other["mse"], rel=1e-4)
        words = row["command"].split()
        assert words[:2] == ["python", "scripts/functions_floor.py"] and len(row["commit"]) == 40
        assert row["run"] == Path(other["checkpoint"]).parent.as_posix()


def test_adaptation_is_paired_and_can_be_run_again():
    keys = set(
        "backbone dataset ways shots arm steps accuracy ci95 gain gain_ci95 episodes seed seconds_per_task "
        "hardware commit command protocol split".split()
    )
    known = {(row.backbone, row.dataset, row.shots, row.arm) for row in rows(parsed(["list"]))}
    found = {}
    for row in ADAPTATION:
        assert set(row) >= keys and row["split"] == "test" and row["protocol"] == "inductive"
        assert row["episodes"] >= 100 and row["ci95"] > 0
        assert all(len(one) == 40 for one in row["commit"].split("; "))
        name = (row["backbone"], row["dataset"], row["shots"], row["arm"])
        assert name in known and name not in found
        found[name] = row
        words = row["command"].split()
        assert words[:2] == ["python", "scripts/adaptation.py"]
        options = parsed(words[2:])
        (again,) = rows(options)
        run = trained_by(NETWORKS[row["backbone"]], row["arm"])
        assert [option for option in RUNS if getattr(options, option)] == [run] * bool(run)
        if run:
            trained = asked(row["train_command"])
            assert trained.run_dir == getattr(options, run) and load_config(trained.config)
        assert (options.device == "auto") == ("H100" in row["hardware"] or "H200" in row["hardware"])
        assert (again.backbone, again.dataset, again.shots, again.arm) == name
    for (backbone, dataset, shots, _), row in found.items():
        base = found[backbone, dataset, shots, "identity"]
        assert math.isclose(row["gain"], row["accuracy"] - base["accuracy"], abs_tol=1e-9)
        assert row["episodes"] == base["episodes"] and dataset in NETWORKS[backbone].datasets


def test_there_are_probabilities_of_the_shipped_weights():
    assert {(row["checkpoint"], row["shots"]) for row in PROBABILITIES} >= {("omniglot-conv4", 5)}


@pytest.mark.parametrize("row", PROBABILITIES, ids=[str(i) for i in range(len(PROBABILITIES))])
def test_probabilities_are_complete_and_can_be_run_again(row):
    keys = set(
        "dataset split ways shots episodes seed command commit hardware wall_seconds ece_before ece_after "
        "temperature auroc auroc_ci95 false_alarm_asked false_alarm_measured protocol checkpoint "
        "weights".split()
    )
    assert set(row) >= keys and row["split"] == "test" and row["protocol"] == "inductive"
    assert len(row["commit"]) == 40 and row["episodes"] >= 600 and row["temperature"] > 0
    assert row["command"] == probabilities_command(probabilities_options(row["command"].split()[2:]))
    assert row["calibrated_on"]["split"] != row["split"]
    known = row["episodes"] * row["ways"] * row["queries"]
    for when in ("before", "after"):
        parts = row[f"reliability_{when}"]
        assert sum(part["count"] for part in parts) == known
        gaps = sum(part["count"] * abs(part["accuracy"] - part["confidence"]) for part in parts)
        assert math.isclose(100 * gaps / known, row[f"ece_{when}"])
        right = sum(part["count"] * part["accuracy"] for part in parts)
        assert math.isclose(100 * right / known, row["accuracy"], rel_tol=1e-6)
    words = row["command"].split()
    assert words[:2] == ["python", "scripts/probabilities.py"]
    again = probabilities_options(words[2:])
    names = ("ways", "shots", "queries", "episodes", "seed", "split")
    assert all(getattr(again, name) == row[name] for name in names) and again.run == row["checkpoint"]


def test_waiting_times_are_complete_and_can_be_measured_again():
    rows = [row for name, row in ALL if name == "reuse.json"]
    assert {row["figure"] for row in rows} == set(reuse.FIGURES)
    for row in rows:
        assert len(row["commit"]) == 40 and row["hardware"] and row["unit"] in ("s", "ms", "logit")
        words = row["command"].split()
        again = reuse.parsed(words[2:])
        assert words[:2] == ["python", "scripts/reuse.py"] and again.figures == [row["figure"]]
        assert again.threads == row["threads"]
        if row["figure"] != "onnx":
            assert len(row["all"]) >= again.repeats >= 5 and row["value"] == statistics.median(row["all"])


def test_what_is_measured_again_takes_the_place_of_earlier(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reuse, "LEARNERS", reuse.LEARNERS[:1])
    monkeypatch.setattr(reuse.torch, "set_num_threads", lambda _: None)
    out = tmp_path / "reuse.json"
    for _ in range(2):
        reuse.main(["fit", "onnx", "--repeats", "2", "--threads", "1", "--out", str(out)])
    one, two = json.loads(out.read_text())
    assert (one["figure"], two["figure"]) == ("fit", "onnx") and len(one["all"]) == 2
    assert 0 < min(one["all"]) <= one["value"] <= max(one["all"])
    assert 0 <= two["value"] <= 1e-4 and two["images"] == 33
    assert f"{two['value']:.1e} on 33 pictures" in capsys.readouterr().out


def test_shipped_weights_are_calibrated_as_the_record_says():
    learner = load_learner("omniglot-conv4")
    calibration = learner.calibrated()
    assert calibration is not None and calibration.tasks["split"] == "val"
    for row in PROBABILITIES:
        if row["checkpoint"] == "omniglot-conv4":
            assert row["temperature"] == calibration.temperature(row["shots"])
            assert row["weights"] == learner.fingerprint() and row["calibrated_on"] == calibration.tasks


def test_probabilities_of_another_data_set_take_the_place_of_earlier_ones(tmp_path):
    words = ["omniglot-conv4", "--dataset", "strokes", "--ways", "2", "--shots", "2", "--queries", "3"]
    out = tmp_path / "probabilities.json"
    for episodes in (3, 4):
        put(probabilities(probabilities_options([*words, "--episodes", str(episodes)])), out)
    put(probabilities(probabilities_options([*words, "--episodes", "3", "--shots", "1"])), out)
    one, two = json.loads(out.read_text())
    assert (one["shots"], one["episodes"], two["shots"], two["episodes"]) == (1, 3, 2, 4)
    assert two["dataset"] == "strokes" and 0.4 < two["auroc"] <= 1 and 0 <= two["false_alarm_measured"] <= 1
    assert sum(part["count"] for part in two["reliability_after"]) == 4 * 2 * 3


def test_shipped_weights_have_their_card_and_are_small():
    files = {file.stem: file for file in cards.SHIPPED.glob("*.safetensors")}
    assert set(files) == set(cards.RESULTS)
    for name, file in files.items():
        assert file.stat().st_size < 2_000_000
        text = file.with_suffix(".md").read_text(encoding="utf-8")
        assert text == cards.written(name) and "license: mit" in text
