"""A file is the old one or the whole new one."""

import os
import threading

import pytest

from metafilm.storage.atomic import atomic_write, remove_unfinished


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


def test_two_threads_write_one_file_each_as_a_whole(tmp_path):
    """The second begins while the first is half done, and ends after it."""
    path = tmp_path / "file"
    half, done = threading.Event(), threading.Event()

    def slowly(file):
        file.write(b"a" * 10)
        half.set()
        assert done.wait(10)
        file.write(b"a" * 10)

    first = threading.Thread(target=atomic_write, args=(path, slowly))
    first.start()
    assert half.wait(10)
    atomic_write(path, b"b" * 5)
    assert path.read_bytes() == b"b" * 5
    done.set()
    first.join(10)
    assert path.read_bytes() == b"a" * 20 and os.listdir(tmp_path) == ["file"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    for name in (".file.17.tmp", ".file.17-0a1b.tmp", ".other.17.tmp", "file"):
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == [".other.17.tmp", "file"]


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_what_others_may_do_with_a_file_stays(tmp_path, mode):
    file = tmp_path / "weights"
    atomic_write(file, b"old")
    file.chmod(mode)
    atomic_write(file, b"new")
    assert file.read_bytes() == b"new" and file.stat().st_mode & 0o777 == mode


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    atomic_write(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    link.unlink()
    link.symlink_to(tmp_path / "nowhere" / "file")
    with pytest.raises(OSError, match="No such file") as error:
        atomic_write(link, b"new")
    assert error.value.filename == str(link)
