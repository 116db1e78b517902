"""`metafilm calibrate` and what `predict --reject` makes of it."""

import json
import shutil

import pytest
import torch

from metafilm import MetaFiLM
from metafilm.cli import calibrate, main
from metafilm.config import Config
from metafilm.learner import build_learner
from metafilm.storage.calibration import read_calibration
from metafilm.storage.run import RunDirectory


def test_calibrated_on_validation_tasks_and_used(place, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    before = MetaFiLM.from_pretrained(run)
    words = [
        "predict",
        str(run),
        "--support",
        str(place / "pictures/test"),
        "--query",
        str(place / "pictures/val"),
    ]
    assert main([*words, "--reject", "0.1"]) == 2
    assert "metafilm calibrate RUN" in capsys.readouterr().err
    assert (
        main(
            [
                "calibrate",
                str(run),
                "--shots",
                "1",
                "2",
                "--episodes",
                "40",
                "--data-root",
                str(place / "root"),
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    for shots in (1, 2):
        assert f"3-way {shots}-shot, 40 tasks of val classes: temperature" in shown
    found = read_calibration(run / "model.safetensors")
    assert found is not None and found.tasks["split"] == "val" and found.tasks["episodes"] == 40
    assert [level.shots for level in found.levels] == [1, 2]
    assert all(f"temperature {level.temperature:.3f}" in shown for level in found.levels)
    after = MetaFiLM.from_pretrained(run)
    assert after.fingerprint() == before.fingerprint() == found.weights
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name])
    assert main([*words, "--reject", "0.5", "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    said = [row["prediction"] for row in record["predictions"]]
    assert None in said and record["reject"] == 0.5
    assert main([*words, "--reject", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("unknown") == shown.count("(else ") == said.count(None)
    assert main([*words, "--reject", "1.5"]) == 2
    assert "reject is 1.5; give the share" in capsys.readouterr().err


def test_weights_that_a_training_may_replace_are_left_alone(place, tmp_path, capsys, monkeypatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    words = ["calibrate", str(run), "--shots", "1", "--episodes", "4", "--data-root", str(place / "root")]
    with RunDirectory(run) as training:
        training.lock()
        assert main(words) == 2
    assert "is in use by process" in capsys.readouterr().err
    plain = calibrate.calibrated

    def meanwhile(learner, *args):
        with torch.no_grad():
            other = MetaFiLM.from_pretrained(run)
            other.mean.add_(1)
        other.save(run / "model.safetensors")
        return plain(learner, *args)

    monkeypatch.setattr(calibrate, "calibrated", meanwhile)
    assert main(words) == 2
    assert f"{run} has other weights than when it was measured" in capsys.readouterr().err
    assert read_calibration(run / "model.safetensors") is None
    monkeypatch.undo()
    assert main(words) == 0, "the run is free again"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "1"], "--episodes must be at least 2, is 1"),
        (["--ways", "1"], "--ways must be at least 2, is 1"),
        (["--shots", "0"], "--shots must be at least 1, is 0"),
        (["--shots", "9", "--episodes", "2"], "9 shots + 2 queries need 11"),
    ],
)
def test_impossible_tasks(words, message, place, capsys) -> None:
    assert main(["calibrate", str(place / "run"), *words, "--data-root", str(place / "root")]) == 2
    assert message in capsys.readouterr().err


def test_values_of_functions_have_no_probabilities(tmp_path, capsys) -> None:
    settings = {"data": {"name": "sinusoids"}, "head": {"name": "regression"}, "backbone": {"name": "mlp"}}
    file = tmp_path / "curves.safetensors"
    build_learner(Config.from_dict(settings), (1,)).save(file)
    assert main(["calibrate", str(file)]) == 2
    assert "learned functions, whose values have no probabilities" in capsys.readouterr().err


def test_a_name_is_nothing_to_write_to(capsys) -> None:
    assert main(["calibrate", "omniglot-conv4"]) == 2
    assert "no run directory or .safetensors file omniglot-conv4" in capsys.readouterr().err
