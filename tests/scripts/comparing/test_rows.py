"""Rows: made once, resumed with the budget they were begun with, and none in the way of another."""

import json
from dataclasses import replace

import pytest
import torch

from episodes.errors import EpisodesError
from metafilm.errors import RunError
from metafilm.evaluation import interval
from metafilm.storage.run import RunDirectory
from metafilm.training.outer_gradient import Diverged
from scripts import compare
from scripts.comparing import frozen, ours, plans
from scripts.comparing.works import WORKS


@pytest.mark.slow
def test_rows_are_made_once_and_compared_in_pairs(tiny, run, written, tmp_path, monkeypatch, capsys) -> None:
    systems = ["metafilm", "protonet", "logistic-regression", "nearest-centroid"]
    run("score", "--budget", "images", "--system", *systems)
    monkeypatch.setattr(ours, "trained", None)  # called, it would fail
    run("score", "--budget", "images", "--system", *systems)
    run("list", "--budget", "images")
    listed = capsys.readouterr().out.splitlines()
    assert "tiny images metafilm scored" in listed and "tiny images cavia -" in listed
    run("write")
    rows = written()
    assert list(rows) == ["protonet", "metafilm", "logistic-regression", "nearest-centroid"]
    scores = {
        name: json.loads((tmp_path / "tiny" / "images" / f"{name}-val-4.json").read_text())["scores"]
        for name in systems
    }
    for name, row in rows.items():
        assert "scores" not in row and row["accuracy"] == pytest.approx(sum(scores[name]) / 4)
        assert 500 < row["images"] < 700 and row["training_seconds"] > 0
        if name != "metafilm":
            gains = [a - b for a, b in zip(scores["metafilm"], scores[name], strict=True)]
            assert row["metafilm_gain"] == pytest.approx(sum(gains) / 4)
            assert row["metafilm_gain_ci95"] == pytest.approx(interval(gains))
    assert rows["nearest-centroid"]["note"] == frozen.NOTES["nearest-centroid"]
    assert rows["protonet"]["minutes_to_target"] == rows["protonet"]["curve"][0][0] / 60
    words = rows["metafilm"]["command"].split()
    assert words[:2] == ["python", "scripts/compare.py"]
    again = compare.parsed(words[2:])
    assert list(map(str, compare.rows(again))) == ["tiny images metafilm"]
    assert (again.folder, again.split, again.images) == (tmp_path, "val", None)
    # other tasks are another scoring, of the same training: a file of its own, and no gain over four tasks
    monkeypatch.undo()
    monkeypatch.setitem(WORKS, "tiny", tiny)
    monkeypatch.setattr(ours, "planned", None)
    run("score", "--budget", "images", "--system", "protonet", "--tasks", "3")
    run("list", "--budget", "images", "--system", "protonet", "metafilm", "--tasks", "3")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "tiny images protonet scored",
        "tiny images metafilm begun",
    ]
    run("write", "--system", "protonet", "--tasks", "3")
    fewer = written()
    assert fewer["protonet"]["episodes"] == 3 and "metafilm_gain" not in fewer["protonet"]
    assert fewer["nearest-centroid"] == rows["nearest-centroid"]
    run("write", "--system", "protonet")
    assert written() == rows


def test_a_row_that_fails_or_is_in_use_stops_no_other(run, written, tmp_path, monkeypatch, capsys) -> None:
    def trained(work, name, *_):
        if name == "cavia":
            raise Diverged("the outer loss is nan")
        if name == "tadam":
            raise EpisodesError("no such data set")
        return {"curve": [(1.0, 50.0)], "training_seconds": 1.0, "images": 1, "note": name}

    monkeypatch.setattr(ours, "trained", trained)
    monkeypatch.setattr(ours, "scores", lambda folder, source, tasks: [50.0] * tasks)
    (tmp_path / "tiny" / "images" / "cnaps").mkdir(parents=True)
    names = ["protonet", "cavia", "tadam", "cnaps", "metafilm"]
    with RunDirectory(tmp_path / "tiny" / "images" / "cnaps") as other:
        other.lock()  # as another process does
        run("score", "--budget", "images", "--system", *names, ends=1)
    shown = capsys.readouterr().out
    assert "tiny images cavia: failed: the outer loss is nan" in shown and "in use by process" in shown
    assert "3 of 5 rows failed: tiny images cavia, tiny images tadam, tiny images cnaps" in shown
    run("write")
    assert list(written()) == ["protonet", "metafilm"]


def test_a_row_keeps_the_budget_it_was_begun_with(run, tmp_path, monkeypatch, capsys) -> None:
    begun = []

    def trained(work, name, budget, amount, folder, *_):
        begun.append(plans.kept(folder, amount, lambda: (0, 7)))
        return {"curve": [(1.0, 50.0)], "training_seconds": 1.0, "images": 1, "note": name}

    monkeypatch.setattr(ours, "trained", trained)
    monkeypatch.setattr(ours, "scores", lambda folder, source, tasks: [50.0] * tasks)
    words = ["score", "--budget", "images", "--system", "protonet", "--tasks"]
    run(*words, "2", "--images", "90")
    run(*words, "3")
    assert begun[0] == begun[1] and (begun[0].amount, begun[0].steps, begun[0].threads) == (90, (0, 7), 1)
    row = json.loads((tmp_path / "tiny" / "images" / "protonet-val-3.json").read_text())
    again = compare.parsed(row["command"].split()[2:])
    assert (again.images, again.tasks, again.folder) == (90, 3, tmp_path)
    run(*words, "3", "--images", "100", ends=1)
    assert "was begun with a budget of 90, not 100; leave --images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("budget", "amount"), [("images", 1_234_567), ("time", 1234.5678901), ("target", 0.1)]
)
def test_a_records_command_has_the_budget_to_the_last_digit(tmp_path, budget, amount) -> None:
    row = compare.Row("tiny", budget, "protonet")
    asked = ["score", "--folder", str(tmp_path)]
    asked += ["--seconds", repr(amount)] if budget == "target" else []
    words = compare.command(row, compare.parsed(asked), float(amount)).split()
    again = compare.parsed(words[2:])
    assert (again.images if budget == "images" else again.seconds) == amount


def test_a_training_goes_on_as_it_was_begun(tmp_path) -> None:
    """On as many threads, and with the settings that nothing else in its folder has; what an older plan does
    not say is not compared."""
    settings = {"outer": {"learning_rate": 0.001}, "maml_step": 0.5}
    torch.set_num_threads(1)
    first = plans.kept(tmp_path, 90, lambda: (0, 7), settings)
    assert plans.kept(tmp_path, 90, lambda: (0, 8), settings) == first and first.commit
    with pytest.raises(RunError, match=r"begun with other settings \(maml_step\)"):
        plans.kept(tmp_path, 90, lambda: (0, 7), settings | {"maml_step": 0.1})
    torch.set_num_threads(2)
    with pytest.raises(RunError, match="begun on 1 threads, not 2; give --threads 1"):
        plans.kept(tmp_path, 90, lambda: (0, 7), settings)
    (tmp_path / "plan.json").write_text('{"amount": 90.0, "steps": [0, 7]}')
    older = plans.kept(tmp_path, 90, lambda: (0, 8), settings)
    assert older == plans.Plan(90.0, (0, 7))


def test_a_target_measured_by_other_budgets_is_said(run, tmp_path, monkeypatch, capsys) -> None:
    def trained(*_):
        return {"curve": [(1.0, 5.0)], "training_seconds": 1.0, "images": 1, "note": "one"}

    monkeypatch.setattr(ours, "trained", trained)
    monkeypatch.setattr(ours, "scores", lambda folder, source, tasks: [50.0] * tasks)
    words = ["score", "--budget", "target", "--system", "metafilm-wide"]
    run(*words, "--seconds", "5")  # which is the work's own budget of time
    row = json.loads((tmp_path / "tiny" / "target" / "metafilm-wide-val-4.json").read_text())
    assert row["tried_seconds"] == [5.0] and "--seconds 5.0" in row["command"]
    run(*words, "--seconds", "5")
    run(*words)
    run(*words, "--seconds", "9", ends=1)
    assert "is of budgets of 5 s; delete it" in capsys.readouterr().out


def test_what_an_older_version_left_is_said(run, tmp_path, capsys) -> None:
    """A plan of steps alone, and scores without split and number of tasks."""
    place = tmp_path / "tiny" / "images" / "protonet"
    place.mkdir(parents=True)
    (place / "plan.json").write_text("[0, 7]")
    place.with_name("protonet.json").write_text("{}")
    place.with_name("cavia.json").write_text("{}")
    words = ["--budget", "images", "--system", "protonet", "cavia", "tadam"]
    run("list", *words)
    protonet, cavia, tadam = capsys.readouterr().out.splitlines()
    assert f"can't go on: {place / 'plan.json'} is of an older version" in protonet
    assert (
        f"delete {place} to" in protonet and "protonet.json is of an older version, and not read" in protonet
    )
    assert cavia.startswith("tiny images cavia -; ") and "cavia.json is of an older version" in cavia
    assert tadam == "tiny images tadam -"
    run("score", "--budget", "images", "--system", "protonet", ends=1)
    assert "plan.json is of an older version" in capsys.readouterr().out
    (place / "plan.json").write_text("{")
    run("list", *words)
    assert f"can't go on: {place / 'plan.json'} is damaged" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_of_other_settings_is_no_result(run, monkeypatch, capsys) -> None:
    run("score", "--budget", "images", "--system", "protonet")
    other = replace(ours.SYSTEMS["protonet"], settings=ours.SYSTEMS["tadam"].settings)
    monkeypatch.setitem(ours.SYSTEMS, "protonet", other)
    run("score", "--budget", "images", "--system", "protonet", "--tasks", "3", ends=1)
    assert "holds a run with other settings" in capsys.readouterr().out


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.slow
def test_peers_are_rows_too(tiny, run, tmp_path) -> None:
    run("score", "--budget", "images", "--system", "learn2learn-maml", "learn2learn-protonet")
    row = json.loads((tmp_path / "tiny" / "images" / "learn2learn-maml-val-4.json").read_text())
    assert row["protocol"] == "transductive" and row["images"] == 33 * tiny.images_per_step
    assert replace(tiny, images=600).images_per_step == 18
