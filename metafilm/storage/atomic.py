"""Files renamed into place, and values as JSON can say them."""

import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO


def atomic_write(path: str | Path, content: bytes | Callable[[BinaryIO], Any]) -> None:
    """Write a file so that a reader or a crash sees the old one or the whole new one.

    `content` is the bytes, or a function that writes them to the open file it gets.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # a folder can't be opened on every system; the rename itself is done
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
