"""The laboratory's records: made of the folders of its commands, read again as tables and figures."""

import json
from pathlib import Path

import pytest

from metafilm.cli import commands as cli
from metafilm.config import Config
from metafilm.errors import MetafilmError
from metafilm.laboratory import answers, tables
from scripts import laboratory

ROOT = Path(__file__).resolve().parents[2]


def arm(name: str, classes: int | None, seed: int, scores: list[float], **more) -> dict:
    """A record as `metafilm ablate` writes it."""
    changes = {} if name == "penalty 0.01" else {"outer.penalty": 1.0}
    return {
        "config": "mine.yaml",
        "dataset": "omniglot",
        "classes": classes,
        "seed": seed,
        "changes": changes,
        "encoder_support": "own",
        "split": "val",
        "episodes": len(scores),
        "measure": "accuracy",
        "ways": 5,
        "shots": 1,
        "protocol": "inductive",
        "scores": scores,
        "training_classes_scores": [score + 10 for score in scores],
        "gain": None,
        "failed": None,
        "training_seconds": 60.0,
        "command": "metafilm ablate mine.yaml",
        "hardware": "a",
        "commit": "b",
        "settings": {"name": "mine"},
        "answers": {"penalty": [{"arm": name, "place": 0 if changes == {} else 1}]},
        **more,
    }


RECORDS = [
    arm("penalty 0.01", 8, 0, [50.0, 60.0, 70.0]),
    arm("penalty 0.01", 8, 1, [52.0, 60.0, 68.0]),
    arm("penalty 0.01", None, 0, [80.0, 90.0, 85.0]),
    arm("penalty 1", 8, 0, [51.0, 62.0, 73.0]),
    arm("penalty 1", 8, 1, [51.0, 62.0, 67.0]),
    arm("penalty 1", None, 0, [], failed="the loss is not finite"),
]


def test_an_ablation_says_the_same_from_its_records(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "ablations"
    folder.mkdir()
    whole = [row | {"command": f"metafilm ablate a.yaml --run-dir {folder}"} for row in RECORDS]
    (folder / "records.json").write_text(json.dumps(whole))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time in the place of the first
        laboratory.main(["ablation", "ablations"], tmp_path)
    rows = json.loads((tmp_path / laboratory.ABLATIONS).read_text())
    assert len(rows) == 4 and laboratory.table(rows) == tables(answers(RECORDS)).strip()
    found = next(row for row in rows if row["arm"] == "penalty 1" and row["classes"] == 8)
    assert found["gain"] == pytest.approx((1 + 2 + 3 - 1 + 2 - 1) / 6) and found["gap"] == pytest.approx(10)
    assert [run["seed"] for run in found["runs"]] == [0, 1] and found["changes"] == {"outer.penalty": 1.0}
    failed = next(row for row in rows if row["arm"] == "penalty 1" and row["classes"] is None)
    assert failed["failed"] == 1 and failed["runs"][0]["failed"] == "the loss is not finite"
    assert found["runs"][0]["command"] == "metafilm ablate a.yaml --run-dir ablations"
    assert "scores" not in found and "scores" not in found["runs"][0]


def sweep(
    sampler: str, validations: list[float | None], classes: int | None = None, norm: str = "running"
) -> dict:
    """trials.json as `metafilm sweep` writes it, best first; None: given up."""
    trials = [
        {
            "trial": number,
            "state": "given up" if value is None else "done",
            "validation": 1.0 if value is None else value,
            "ci95": 0.5,
            "settings": {"outer.penalty": 0.1 * (number + 1), "encoder.decoder": "gru"},
            "training_seconds": 30.0,
            "environment": {"hardware": "a", "commit": "b"},
        }
        for number, value in enumerate(validations)
    ]
    own = {"name": "mine", "outer": {"penalty": 0.1}, "encoder": {"decoder": "gru"}}
    config = Config.from_dict(own | {"data": {"classes": classes}, "backbone": {"norm": norm}}).to_dict()
    return {
        "command": f"metafilm sweep mine.yaml --sampler {sampler}",
        "search": {"outer.penalty": "0.1..1", "encoder.decoder": "linear,gru"},
        "sampler": sampler,
        "pruner": "median",
        "startup": 5,
        "config": config,
        "measure": "accuracy",
        "split": "val",
        "trials": sorted(trials, key=lambda trial: -trial["validation"]),
    }


def test_sweeps_stand_side_by_side(tmp_path) -> None:
    for sampler, validations in (("tpe", [50.0, 61.25, None, 60.0]), ("random", [50.0, 40.0, 55.0, None])):
        folder = tmp_path / sampler
        folder.mkdir()
        (folder / "trials.json").write_text(json.dumps(sweep(sampler, validations)))
        laboratory.main(["sweep", str(folder)], tmp_path)
    rows = json.loads((tmp_path / laboratory.SWEEPS).read_text())
    assert [laboratory.reached(row) for row in rows] == [[50, 61.25, 61.25, 61.25], [50, 50, 55, 55]]
    assert [trial["trial"] for trial in rows[0]["trials"]] == [0, 1, 2, 3] and rows[0]["hardware"] == "a"
    lines = laboratory.sweeps(rows).splitlines()
    assert lines[2] == (
        "| mine, tpe | 3, 1, 0 | 50.00 ± 0.50 | 61.25 ± 0.50 | 2 | outer.penalty 0.2, encoder.decoder gru |"
    )
    # without its own values among the trials nothing says what the configuration reaches
    found = sweep("tpe", [50.0], classes=16, norm="transductive")
    found["trials"][0]["settings"]["outer.penalty"] = 0.2
    (tmp_path / "tpe" / "trials.json").write_text(json.dumps(found))
    laboratory.main(["sweep", str(tmp_path / "tpe")], tmp_path)
    *before, other = json.loads((tmp_path / laboratory.SWEEPS).read_text())
    assert before == rows and (other["protocol"], rows[0]["protocol"]) == ("transductive", "inductive")
    assert "| 1, 0, 0 | – | 50.00 ± 0.50 |" in laboratory.sweeps([other])
    other["trials"][0]["state"] = "failed"
    assert laboratory.sweeps([other]).endswith("| 0, 0, 1 | – | – | 0 | – |"), "of which none is done"
    (tmp_path / laboratory.ABLATIONS).write_text(json.dumps(laboratory.of_ablation(RECORDS)))
    (tmp_path / "docs").mkdir()
    laboratory.main(["draw"], tmp_path)
    assert (tmp_path / "docs/mine.svg").stat().st_size > 10_000
    assert b"best validation so far" in (tmp_path / "docs/sweeps.svg").read_bytes()


def test_without_sweeps_the_ablations_are_drawn(tmp_path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / laboratory.ABLATIONS).write_text(json.dumps(laboratory.of_ablation(RECORDS)))
    laboratory.main(["draw"], tmp_path)
    assert [file.name for file in (tmp_path / "docs").iterdir()] == ["mine.svg"]


def test_what_is_not_there_or_damaged(tmp_path, capsys) -> None:
    with pytest.raises(MetafilmError, match="is not there; name a folder that metafilm ablate made"):
        laboratory.main(["ablation", str(tmp_path)], tmp_path)
    (tmp_path / "trials.json").write_text("[")
    with pytest.raises(MetafilmError, match="is damaged; let the command"):
        laboratory.main(["sweep", str(tmp_path)], tmp_path)
    for words in (["sweep"], ["draw", "folder"]):
        with pytest.raises(SystemExit):
            laboratory.main(words, tmp_path)
    assert "sweep needs a folder at least" in capsys.readouterr().err


def committed(file: str) -> list[dict]:
    path = ROOT / file
    return json.loads(path.read_text()) if path.is_file() else []


@pytest.mark.parametrize("row", committed(laboratory.ABLATIONS))
def test_a_committed_answer_can_be_had_again(row, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert row["split"] == "val" and row["protocol"] == "inductive" and row["seeds"] + row["failed"] > 0
    for run in row["runs"]:
        for command in (run["command"], run["train_command"]):
            words = command.split()
            assert words[0] == "metafilm" and cli.parse(words[1:]) is not None
        assert run["hardware"] and "changes" not in run["commit"]


@pytest.mark.parametrize("row", committed(laboratory.SWEEPS))
def test_a_committed_sweep_can_be_had_again(row, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert row["split"] == "val" and row["hardware"] and "changes" not in row["commit"]
    words = row["command"].split()
    assert words[:2] == ["metafilm", "sweep"] and cli.parse(words[1:]) is not None
