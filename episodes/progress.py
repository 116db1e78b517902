"""A progress bar on stderr for work that takes longer than it is pleasant to wait in silence."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

_Item = TypeVar("_Item")
DELAY_SECONDS = 2.0


class Progress:
    """A bar that appears after two seconds, on stderr, when somebody looks.

    with Progress("reading images", total=100) as progress:
        progress.advance()

    show: True shows it at once and always, False never; None (default) when stderr is a terminal, or as the
    environment variable METAFILM_PROGRESS says (`always` or `never`).
    """

    def __init__(self, description: str, total: int | None = None, show: bool | None = None) -> None:
        wish = os.environ.get("METAFILM_PROGRESS", "")
        self._forced = show is True or (show is None and wish == "always")
        self._wanted = self._forced or (show is None and wish != "never" and sys.stderr.isatty())
        self._description = description
        self._total = total
        self._done = 0
        self._start = time.monotonic()
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
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self._description)
        elif self._wanted and (self._forced or time.monotonic() - self._start > DELAY_SECONDS):
            self._open()

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
