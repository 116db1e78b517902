"""The command line that all systems share."""

import dataclasses
import sys

import pytest

from metafilm.errors import MetafilmError
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
