"""The command line that all systems share."""

import dataclasses
import json
import sys

import pytest

from metafilm.errors import ConfigError, MetafilmError
from scripts.conditioning import committed
from scripts.conditioning.commands import systems
from scripts.conditioning.visual_questions import SYSTEM


def test_an_error_and_ctrl_c_are_one_line(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sys, "argv", ["visual_questions.py", "write", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"^no finished runs in {tmp_path}; train some"):
        SYSTEM.start("About.")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(SYSTEM, "test", stopped)
    with pytest.raises(SystemExit, match=r"^interrupted$"):
        SYSTEM.start("About.")


def test_what_needs_no_runs_and_what_does(monkeypatch, tmp_path, capsys) -> None:
    runs = ["--runs", str(tmp_path)]
    SYSTEM.main(["list", *runs])
    assert capsys.readouterr().out == f"no finished runs in {tmp_path}\n"
    drawn = []
    monkeypatch.setitem(SYSTEM.more, "draw", lambda options, found: drawn.append(found))
    SYSTEM.main(["draw", *runs])
    assert drawn == [[]]

    def lacking(*_):
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setitem(SYSTEM.more, "draw", lacking)
    with pytest.raises(MetafilmError, match=r"draw needs matplotlib; pip install 'metafilm\[plots\]'"):
        SYSTEM.main(["draw", *runs])


@pytest.mark.parametrize("system", systems().values(), ids=systems())
def test_the_usual_arm_is_one_of_the_file(system) -> None:
    assert system.settings(system.parsed(None, ["train"]).arm).iterations > 0


@pytest.mark.parametrize(
    "change", ["width=-3", "pictures=0", "decay=-0.1", "learning_rate=.nan", "iterations=0"]
)
def test_a_size_below_one_is_refused(change) -> None:
    name, _, value = change.partition("=")
    with pytest.raises(ConfigError, match=f"{name} is {value.replace('.nan', 'nan')}, expected at least"):
        SYSTEM.settings("film-4", [change])
    assert SYSTEM.settings("film-4", ["warmup=0"]).warmup == 0


def test_seeds_that_are_not_here_are_kept(tmp_path) -> None:
    one = {"system": "a", "arm": "b", "setting": {}, "metric": "c", "value": 1.0}
    path = tmp_path / "records.json"
    committed.put(path, [{**one, "seeds": [0, 1, 2]}])
    kept = path.read_text()
    with pytest.raises(MetafilmError, match=r"arm b of the seeds \[1, 2\] too, whose runs are not here"):
        committed.put(path, [{**one, "seeds": [0]}])
    assert path.read_text() == kept
    committed.put(path, [{**one, "seeds": [0, 1, 2, 3]}])
    assert "3" in path.read_text()


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0]])
def test_seeds_of_several_machines_make_the_record_of_one(order, tmp_path) -> None:
    settings = dataclasses.asdict(SYSTEM.settings("film-4", ["scenes=250"]))
    runs = [
        {
            "arm": "film-4",
            "settings": {**settings, "seed": seed},
            "scores": {
                "test": {m: {"value": value + i, "ci95": 1.0, "gap": value} for i, m in enumerate("mn")}
            },
            "beside": {"condition_parameters": 7},
            "parameters": 9,
            "training_seconds": value,
            "scored": {"seconds": seed, "hardware": "h", "commit": "c"},
            "hardware": hardware,
            "commit": "abc-dirty" if seed else "abc",
        }
        for seed, value, hardware in ((0, 4.1, "a; b"), (1, 2.3, "b"), (2, 3.7, "a; b"))
    ]
    one, several = tmp_path / "one.json", tmp_path / "several.json"
    committed.put(one, SYSTEM.records(runs))
    here: list = []
    for seed in order:  # a machine has none of the first's runs, and writes its own again with each new one
        here = [*here[: len(order)], runs[seed]] if seed != order[0] else []
        new = committed.not_joined(several, here or [runs[seed]])
        assert [run["settings"]["seed"] for run in new] == [seed]
        committed.put(several, SYSTEM.records(new))
    assert committed.not_joined(several, here) == []
    changed = {**here[0], "scores": {"test": {m: {"value": 9.0, "ci95": 1.0, "gap": 9.0} for m in "mn"}}}
    with pytest.raises(MetafilmError, match="too, whose runs are not here"):
        committed.put(several, SYSTEM.records(committed.not_joined(several, [changed])))
    found, wanted = json.loads(several.read_text()), json.loads(one.read_text())
    assert len(found) == len(wanted) == 2 and found[0]["seeds"] == [0, 1, 2]
    for mine, theirs in zip(found, wanted, strict=True):
        for name in ("hardware", "commit"):  # in the order of their coming
            assert set(mine.pop(name).split("; ")) == set(theirs.pop(name).split("; "))
        assert mine.pop("gap") == pytest.approx(theirs.pop("gap")) and mine == theirs
    with pytest.raises(MetafilmError, match=r"of the seeds \[0, 2\] too"):
        committed.put(several, SYSTEM.records([runs[1]]))


def test_a_run_has_one_folder_however_its_settings_are_said(tmp_path) -> None:
    plain = SYSTEM.folder(tmp_path, "film-4", 0)
    assert plain == tmp_path / "film-4-seed=0"
    usual = SYSTEM.settings("film-4")
    assert SYSTEM.folder(tmp_path, "film-4", 0, [f"scenes={usual.scenes}"]) == plain
    one = SYSTEM.folder(tmp_path, "film-4", 1, ["scenes=250", "decay=3e-4"])
    assert one == SYSTEM.folder(tmp_path, "film-4", 1, ["decay=0.0003", "scenes=250"])
    assert one == tmp_path / "film-4-decay=0.0003-scenes=250-seed=1"


def test_a_run_is_no_second_seed_of_itself() -> None:
    settings = dataclasses.asdict(SYSTEM.settings("film-4"))
    made = {"parameters": 1, "training_seconds": 1.0, "hardware": "a", "commit": "b"}
    one = {"arm": "film-4", "scores": {"test": {"m": {"value": 1.0, "ci95": 1.0}}}, **made}
    seeds = [{**one, "settings": {**settings, "seed": seed}} for seed in (0, 1)]
    (record,) = SYSTEM.records([seeds[0], {**seeds[1], "hardware": "c", "training_seconds": 4.0}])
    assert record["seeds"] == [0, 1] and record["hardware"] == "a; c" and record["commit"] == "b"
    assert record["training_seconds_by_seed"] == [1, 4]
    with pytest.raises(MetafilmError, match=r"two runs of the same settings and seed among \[0, 0\]"):
        SYSTEM.records([seeds[0], seeds[0]])


def test_a_run_that_ends_while_others_are_tested_waits_for_the_next_time(monkeypatch, tmp_path) -> None:
    settings = dataclasses.asdict(SYSTEM.settings("film-4"))
    made = {"parameters": 1, "training_seconds": 1.0, "hardware": "a", "commit": "b"}
    for seed, splits in ((0, ("val", "test")), (1, ("val",))):
        folder = tmp_path / f"film-4-seed={seed}"
        folder.mkdir()
        scores = {split: {"m": {"value": 1.0, "ci95": 1.0}} for split in splits}
        one = {"arm": "film-4", "settings": {**settings, "seed": seed}, "scores": scores, **made}
        (folder / "scores.json").write_text(json.dumps(one))
    monkeypatch.setattr(SYSTEM, "test", lambda runs: None)
    monkeypatch.setattr(SYSTEM, "out", tmp_path / "out.json")
    SYSTEM.main(["write", "--runs", str(tmp_path)])
    (record,) = json.loads((tmp_path / "out.json").read_text())
    assert record["seeds"] == [0]
