"""The command line that all systems share."""

import sys

import pytest

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
