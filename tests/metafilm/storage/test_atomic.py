"""A file is the old one or the whole new one."""

import os

import pytest

from metafilm.storage.atomic import atomic_write


def test_atomic_write_replaces_or_leaves(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, b"old")
    os.link(path, tmp_path / "opened before")
    atomic_write(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert (tmp_path / "opened before").read_bytes() == b"old"  # renamed into place, not written over
    os.remove(tmp_path / "opened before")

    def half(file):
        file.write(b"torn")
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        atomic_write(path, half)
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]
