"""One process at a time: waiting for one's turn at a file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such lock on this platform: the user keeps processes apart
    fcntl = None


@contextmanager
def turn(path: str | Path) -> Iterator[None]:
    """Wait until no other process is within this context for the same file, which is made if need be.

    The system ends the turn of a process that dies.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
