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


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock.now += seconds."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr("episodes.progress.time.monotonic", lambda: Clock.now)
    return Clock


def test_a_log_gets_a_line_a_minute(capfd, clock):
    with Progress("train", 20_000) as progress:
        for _ in range(59):
            clock.now += 1
            progress.advance(10)
        assert capfd.readouterr().err == ""
        for _ in range(61):
            clock.now += 1
            progress.advance(10)
        out, err = capfd.readouterr()
        assert out == "" and err.splitlines() == [
            "train 600/20000 3.0 %, 33 min left",
            "train 1200/20000 6.0 %, 32 min left",
        ]
        clock.now += 3 * 3600
        progress.advance(18_700, "almost")
        assert capfd.readouterr().err == "almost 19900/20000 99.5 %, 55 s left\n"


def test_lines_without_a_total_and_of_what_is_resumed(capfd, clock):
    counted, resumed = Progress("counting"), Progress("train", 1000)
    resumed.advance(900)  # done by an earlier run
    clock.now += 600
    counted.advance(7)
    resumed.advance(50)
    assert capfd.readouterr().err == "counting 7, 10 min so far\ntrain 950/1000 95.0 %, 10 min left\n"
    clock.now += 4 * 3600
    counted.advance()
    assert capfd.readouterr().err == "counting 8, 4 h 10 min so far\n"


@pytest.mark.parametrize(("wish", "show"), [("never", None), ("", False)])
def test_a_silent_log(capfd, clock, monkeypatch, wish, show):
    monkeypatch.setenv("METAFILM_PROGRESS", wish)
    progress = Progress("train", 9, show)
    for _ in range(9):
        clock.now += 100
        progress.advance()
    assert capfd.readouterr() == ("", "")
