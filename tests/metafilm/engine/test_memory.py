"""Keeping freed memory: only where there is glibc."""

import platform
import subprocess
import sys

import pytest

from metafilm.engine import memory


def test_elsewhere_nothing_happens(monkeypatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("asked the C library"))
    assert memory.keep_freed_memory() is False


def test_a_library_without_mallopt(monkeypatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert memory.keep_freed_memory() is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_stays() -> None:
    """In a process of its own, since it can't be undone: 64 MB freed are still resident."""
    script = """
import ctypes, importlib.util, sys
spec = importlib.util.spec_from_file_location("memory", sys.argv[1])
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def grow():
    before = resident()
    block = libc.malloc(ctypes.c_size_t(64 << 20))
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
    return resident() - before
print(grow() > 32 << 20, memory.keep_freed_memory(), grow() > 32 << 20)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, memory.__file__], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", "True"]
