"""How the kernels are built and kept; what happens without a compiler, and what is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metafilm.engine import kernels, native

needs_compiler = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
FOLDER = Path(native.__file__).parent
# The file alone, which needs no PyTorch: a process of its own is then quick.
REPORT = """
import os, sys, warnings
sys.path.insert(0, {folder!r})
import library as native
os.umask({umask})
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    native.library(), native.library()
found = native.status()
print(int(found.on), len(caught), int(found.fault), found.file, found.why.splitlines()[:1])
"""


def report(cache: Path, umask: int = 0o022, **environment) -> tuple[list[str], str]:
    """In a new process with this cache: is it on, how many warnings, is it a fault; all that it printed."""
    found = subprocess.run(
        [sys.executable, "-c", REPORT.format(umask=umask, folder=str(FOLDER))],
        env={
            **os.environ,
            "XDG_CACHE_HOME": str(cache),
            "METAFILM_NATIVE": "1",
            "METAFILM_NATIVE_FLAGS": "-O0",  # built sooner
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()[:3], found.stdout


def own_compiler(folder: Path, script: str) -> str:
    """A PATH whose cc is this shell script."""
    folder.mkdir()
    (folder / "cc").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cc").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@needs_compiler
@pytest.mark.parametrize("umask", [0o002, 0o000, 0o022])
def test_any_umask(tmp_path, umask) -> None:
    assert report(tmp_path, umask)[0] == ["1", "0", "0"]
    (file,) = tmp_path.glob("metafilm/native/*.so")
    assert file.stat().st_mode & 0o777 == file.parent.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_a_library_that_others_could_have_written_is_built_anew(tmp_path) -> None:
    report(tmp_path)
    (file,) = tmp_path.glob("metafilm/native/*.so")
    file.write_bytes(b"not ours")
    file.chmod(0o775)
    assert report(tmp_path)[0] == ["1", "0", "0"]
    assert file.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_a_folder_that_others_can_write_is_said_once(tmp_path) -> None:
    (tmp_path / "metafilm" / "native").mkdir(parents=True)
    (tmp_path / "metafilm" / "native").chmod(0o777)
    flags, said = report(tmp_path)
    assert flags == ["0", "1", "1"] and "chmod go-w" in said


@needs_compiler
def test_a_failed_compile_is_remembered(tmp_path) -> None:
    script = f'[ "$1" = --version ] && exit; echo tried >> {tmp_path}/tries; echo "no such luck" >&2; exit 1'
    path = own_compiler(tmp_path / "bin", script)
    for _ in range(2):
        flags, said = report(tmp_path, PATH=path)
        assert flags == ["0", "1", "1"] and "no such luck" in said
    assert (tmp_path / "tries").read_text().split() == ["tried"]
    (marker,) = tmp_path.glob("metafilm/native/*.failed")
    assert str(marker) in said
    os.utime(marker, (0, 0))  # long ago
    report(tmp_path, PATH=path)
    assert (tmp_path / "tries").read_text().split() == ["tried", "tried"]


@needs_compiler
def test_other_flags_are_another_library(tmp_path) -> None:
    report(tmp_path)
    assert report(tmp_path, METAFILM_NATIVE_FLAGS="-DSOMETHING='a b'")[0] == ["1", "0", "0"]
    assert len(list(tmp_path.glob("metafilm/native/*.so"))) == 2


@needs_compiler
def test_flags_that_would_lose_nan_are_refused(tmp_path) -> None:
    flags, said = report(tmp_path, METAFILM_NATIVE_FLAGS="-ffast-math")
    assert flags == ["0", "1", "1"] and "error" in said


def test_what_is_off_on_purpose_is_not_warned_of(tmp_path) -> None:
    flags, said = report(tmp_path, METAFILM_NATIVE="0")
    assert flags == ["0", "0", "0"] and "METAFILM_NATIVE=0" in said
    flags, said = report(tmp_path, PATH=str(tmp_path))
    assert flags == ["0", "0", "0"] and "no C compiler" in said


SCRIPT = """
import torch
from metafilm.engine import kernels
from metafilm.engine.native import functions as native
assert (native.library() is None) == {absent}
y = torch.arange(2 * 8 * 16.).view(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
print(*(round(float(v.sum()), 3) for v in kernels.pool_and_moments(y)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["switched off", "no compiler", "as it is", "cache others can write"])
def test_without_the_kernels_the_numbers_are_the_same(how, tmp_path) -> None:
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path))
    if how == "switched off":
        environment["METAFILM_NATIVE"] = "0"
    elif how == "no compiler":
        environment["PATH"] = str(tmp_path)
    elif how == "cache others can write":
        (tmp_path / "metafilm" / "native").mkdir(parents=True)
        (tmp_path / "metafilm" / "native").chmod(0o777)
    absent = how != "as it is" or native.library() is None
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(absent=absent)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    y = torch.arange(2 * 8 * 16.0, dtype=torch.float64).view(2, 8, 4, 4)
    expected = [float(value.sum()) for value in kernels.pool_and_moments(y)]
    assert [float(word) for word in found.stdout.split()] == pytest.approx(expected, rel=1e-6)
