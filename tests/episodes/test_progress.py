"""Progress: silent when quick or unwatched, on stderr otherwise."""

import pytest

from episodes.progress import Progress, track


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch):
    monkeypatch.delenv("METAFILM_PROGRESS", raising=False)


def test_passes_items_through(capfd):
    assert list(track(iter(range(5)), "counting")) == [0, 1, 2, 3, 4]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("how", "seen"), [("argument", True), ("always", True), ("never", False), ("", False)]
)
def test_shows_on_stderr_when_told_to(capfd, monkeypatch, how, seen):
    monkeypatch.setattr("episodes.progress.DELAY_SECONDS", 0)
    monkeypatch.setenv("METAFILM_PROGRESS", how)
    with Progress("counting sheep", 3, show=True if how == "argument" else None) as progress:
        for _ in range(3):
            progress.advance()
    out, err = capfd.readouterr()
    assert out == "" and ("counting sheep" in err and "3/3" in err) is seen


@pytest.mark.parametrize(("delay", "seen"), [(60, False), (0, True)])
def test_a_terminal_sees_it_after_a_while(capfd, monkeypatch, delay, seen):
    monkeypatch.setattr("episodes.progress.DELAY_SECONDS", delay)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    list(track(range(3), "counting sheep"))
    assert ("counting sheep" in capfd.readouterr().err) is seen
