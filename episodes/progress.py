"""How far long work is, on stderr: a bar for who looks on, a line a minute in a log."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

_Item = TypeVar("_Item")
DELAY_SECONDS = 2.0
LINE_SECONDS = 60.0


class Progress:
    """A bar that appears after two seconds, on stderr, when somebody looks; in a log a plain line a minute.

    with Progress("reading images", total=100) as progress:
        progress.advance()

    show: True shows the bar at once and always, False nothing; None (default) a bar when stderr is a terminal
    and lines ("train 1200/20000 6.0 %, 12 min left") when it isn't, or as the environment variable
    METAFILM_PROGRESS says (`always` a bar, `never` nothing).
    """

    def __init__(self, description: str, total: int | None = None, show: bool | None = None) -> None:
        wish = os.environ.get("METAFILM_PROGRESS", "")
        self._forced = show is True or (show is None and wish == "always")
        self._wanted = self._forced or (show is None and wish != "never" and sys.stderr.isatty())
        self._lines = not self._wanted and show is None and wish != "never"
        self._description = description
        self._total = total
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._first: int | None = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int = 1, description: str | None = None) -> None:
        """Say that `count` more are done, and perhaps what is being done now."""
        self._done += count
        self._description = description or self._description
        if self._first is None:  # what was done before, when this resumes something, says nothing of the pace
            self._first = self._done
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self._description)
        elif self._wanted and (self._forced or time.monotonic() - self._start > DELAY_SECONDS):
            self._open()
        elif self._lines and (now := time.monotonic()) - self._last_line >= LINE_SECONDS:
            self._last_line = now
            print(self._line(now - self._start), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        """What a log gets, `seconds` after the start."""
        if not self._total:
            return f"{self._description} {self._done}, {_duration(seconds)} so far"
        line = f"{self._description} {self._done}/{self._total} {100 * self._done / self._total:.1f} %"
        here = self._done - (self._first or 0)
        return f"{line}, {_duration(seconds / here * (self._total - self._done))} left" if here else line

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        columns += [TimeElapsedColumn(), TimeRemainingColumn()]
        self._bar = Bar(*columns, console=Console(stderr=True, force_terminal=self._forced or None))
        self._task = self._bar.add_task(self._description, total=self._total, completed=self._done)
        self._bar.start()


def _duration(seconds: float) -> str:
    """In words as exact as they are useful: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def track(
    items: Iterable[_Item], description: str, total: int | None = None, show: bool | None = None
) -> Iterator[_Item]:
    """Pass `items` through, with a `Progress` bar that counts them."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with Progress(description, total, show) as progress:
        for item in items:
            yield item
            progress.advance()
