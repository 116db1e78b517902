"""The shared library of this folder's C: built at first use, kept in the user's own cache directory.

Its name is a hash of sources, compiler, flags and processor; a file that others could have written is not
loaded.
``METAFILM_NATIVE=0`` switches it off, ``METAFILM_NATIVE_FLAGS`` holds more flags for the compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.c", "blocks.c"))
HEADER = Path(__file__).with_name("numbers.h")
# Not -ffast-math nor -ffinite-math-only: with them the compiler drops the comparisons that keep NaN.
FLAGS = (
    "-O3 -march=native -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math -shared -fPIC"
).split()
REMEMBERED = 24 * 3600  # seconds for which a failed compile isn't tried again
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Status:
    """Whether the kernels are on, and if not, why."""

    on: bool
    why: str = ""
    """Empty where they are on."""
    compiler: str | None = None
    file: Path | None = None
    """The library; None where it did not come to that."""
    fault: bool = False
    """Off although they are switched on and there is a compiler: somebody should know."""


class _Failure(Exception):
    """Why the kernels can't be had although they should."""


def library() -> ctypes.CDLL | None:
    """The built kernels; None where they can't be had, with one warning if that is not as it should be."""
    loaded, found = _load_once()
    if found.fault:
        _warn_once(found.why)
    return loaded


def status() -> Status:
    """What :func:`library` came to, without a warning; builds it if it isn't built yet."""
    return _load_once()[1]


def _load_once() -> tuple[ctypes.CDLL | None, Status]:
    with _LOCK:
        return _load()


@cache
def _load() -> tuple[ctypes.CDLL | None, Status]:
    if os.environ.get("METAFILM_NATIVE", "1") == "0":
        return None, Status(False, "switched off by METAFILM_NATIVE=0")
    if os.name != "posix":
        return None, Status(False, f"not made for {platform.system()}")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None, Status(False, "no C compiler: none of cc, gcc and clang is on the PATH")
    file = None
    try:
        file = _private_folder() / f"kernels-{_key(compiler)}.so"
        if not (file.exists() and _is_own(file)):
            _build(compiler, file)
        return ctypes.CDLL(str(file)), Status(True, "", compiler, file)
    except (OSError, ValueError, subprocess.SubprocessError, _Failure) as error:
        return None, Status(False, str(error), compiler, file, fault=True)


@cache
def _warn_once(why: str) -> None:
    warnings.warn(
        f"metafilm runs without its compiled kernels, more slowly: {why} (metafilm doctor tells more; "
        "METAFILM_NATIVE=0 does without them on purpose)",
        stacklevel=3,
    )


def _flags() -> list[str]:
    return [*FLAGS, *shlex.split(os.environ.get("METAFILM_NATIVE_FLAGS", ""))]


def _key(compiler: str) -> str:
    sources = [file.read_text(encoding="utf-8") for file in (*SOURCES, HEADER)]
    parts = [*sources, compiler, *_flags(), _version(compiler), _processor()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _build(compiler: str, file: Path) -> None:
    """Compile to ``file``. _Failure with what the compiler says, now or within the last day."""
    marker = file.with_suffix(".failed")
    if marker.exists() and _is_own(marker) and time.time() - marker.stat().st_mtime < REMEMBERED:
        raise _Failure(
            f"{marker.read_text(encoding='utf-8', errors='replace').strip()} (found earlier and not tried "
            f"again for a day; delete {marker} to try now)"
        )
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        built = Path(scratch) / "kernels.so"
        command = [compiler, *_flags(), "-o", str(built), *map(str, SOURCES)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
            message = done.stderr.strip() or f"exit code {done.returncode}"
            failed = done.returncode != 0
        except subprocess.TimeoutExpired:
            message, failed = "not done after two minutes", True
        if failed:
            said = f"{compiler} can't compile them: {message}"
            note = Path(scratch) / "failed"
            note.write_text(said, encoding="utf-8")
            _publish(note, marker, 0o600)
            raise _Failure(said)
        _publish(built, file, 0o700)
    marker.unlink(missing_ok=True)


def _publish(path: Path, name: Path, mode: int) -> None:
    """Rename, with a mode of its own: the umask may let a group write, and such a file would be refused."""
    path.chmod(mode)
    os.replace(path, name)


def _private_folder() -> Path:
    from platformdirs import user_cache_path

    folder = user_cache_path("metafilm") / "native"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_own(folder):
        raise _Failure(
            f"others could write to {folder}, and what lies there is run: it must be yours, and closed to "
            f"group and others (chmod go-w {folder})"
        )
    return folder


def _is_own(path: Path) -> bool:
    """Whether this user alone can have written the file or folder."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _version(compiler: str) -> str:
    command = [compiler, "--version"]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30).stdout


def _processor() -> str:
    """What ``-march=native`` depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {flags}"
