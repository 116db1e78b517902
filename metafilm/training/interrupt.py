"""Ctrl-C and SIGTERM, heeded between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible(last_words: bool = False) -> Iterator[threading.Event]:
    """Ctrl-C (or SIGTERM, as schedulers send it) sets the event, so that the step under way ends first; a
    second one interrupts at once. With ``last_words`` SIGTERM is ignored from then on: torchrun sends it when
    another process has died, while this one still has to say so.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    if last_words:
        before[signal.SIGTERM] = signal.SIG_IGN
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
