"""Where data sets lie on this machine, and files that are never seen half-written."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO


def data_root(root: str | os.PathLike | None = None) -> Path:
    """The folder that holds the data sets: the argument, else $METAFILM_DATA, else the user's cache folder
    for metafilm."""
    if root is None:
        root = os.environ.get("METAFILM_DATA") or None
    if root is None:
        import platformdirs

        root = platformdirs.user_cache_dir("metafilm")
    return expanded(root)


def expanded(path: str | os.PathLike) -> Path:
    """The path with the home folder in the place of its ~; as it is where nobody has that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def printable(path: str | os.PathLike) -> str:
    """The path as text that any terminal or JSON file takes: bytes that are no UTF-8 come out as \\xff.

    Linux allows any bytes in a name; Python carries those that are no UTF-8 as lone surrogates, which can't
    be printed or encoded.
    """
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it: `path` is the old file or the whole new one,
    never less."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private to the user, and this one stays. O_EXCL keeps two writers apart.
    name = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
