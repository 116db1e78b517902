"""The shared library of ``kernels.c``: built at first use, kept in the user's own cache directory.

Its name is a hash of source, compiler and processor; a file that others could have written is not loaded.
``METAFILM_NATIVE=0`` switches it off.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = (
    "-O3 -march=native -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math -shared -fPIC"
).split()


@cache
def library() -> ctypes.CDLL | None:
    """The built kernels; None where they can't be had."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if os.environ.get("METAFILM_NATIVE", "1") == "0" or compiler is None or os.name != "posix":
        return None
    try:
        key = hashlib.sha256(
            "\n".join([SOURCE.read_text(), compiler, *FLAGS, _version(compiler), _processor()]).encode()
        ).hexdigest()[:24]
        folder = _private_folder()
        file = folder / f"kernels-{key}.so"
        if not file.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = Path(scratch) / "kernels.so"
                subprocess.run(
                    [compiler, *FLAGS, "-o", str(built), str(SOURCE)],
                    check=True,
                    capture_output=True,
                    timeout=120,
                )
                os.replace(built, file)
        _require_own(file)
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None


def _private_folder() -> Path:
    from platformdirs import user_cache_path

    folder = user_cache_path("metafilm") / "native"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_own(folder)
    return folder


def _require_own(path: Path) -> None:
    """OSError unless this user alone can have written the file or folder."""
    found = path.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{path} can be written by others")


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30).stdout


def _processor() -> str:
    """What ``-march=native`` depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {flags}"
