"""Files renamed into place, and values as JSON can say them."""

import math
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


def atomic_write(path: str | Path, content: bytes | Callable[[BinaryIO], Any]) -> None:
    """Write a file so that a reader or a crash sees the old one or the whole new one.

    `content` is the bytes, or a function that writes them to the open file it gets. An OSError names `path`;
    where that is a link, what it leads to is written and the link stays.
    """
    path, named = Path(os.path.realpath(path)), path
    beside = unfinished(path)
    with naming(named):
        try:
            with beside.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    content(file)
                file.flush()
                os.fsync(file.fileno())
                with suppress(OSError, AttributeError):  # a private file stays one
                    os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):  # the first error says what is wrong
                beside.unlink(missing_ok=True)
            raise
    with suppress(OSError):  # a folder can't be opened on every system; the rename itself is done
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def unfinished(path: Path) -> Path:
    """Where a file is written until it is whole: no other process or thread writes there."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def remove_unfinished(path: Path) -> None:
    """Remove what processes left that were killed while they wrote the file; nobody may be writing it."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """An OSError from within is one of `path`: that of a full disk names no file, others one beside it."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def require_room(folder: str | Path) -> None:
    """Raise OSError unless a file can be made in `folder`; leaves none there."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def finite(value: Any) -> Any:
    """`value` for JSON: NaN and Inf, which JSON lacks, as None; numpy and torch scalars as numbers."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
