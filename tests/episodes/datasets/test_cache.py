"""The pool cache: kept, mapped, rebuilt when the source changes or the file is damaged."""

import os

import pytest
import torch

from episodes import ClassPool, data_root
from episodes.datasets.cache import cached_pool, fingerprint
from episodes.files.root import write_atomically

POOL = ClassPool.from_arrays(
    torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2),
    [0, 0, 1, 1, 1, 2],
    ["a", "b", "c"],
    ["x", "y", "x"],
    "toy",
    "val",
)
KEY = {"name": "toy", "split": "val", "size": 2, "fingerprint": "f"}


class Builder:
    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return POOL


def same(pool):
    parts = (pool.images, POOL.images), (pool.offsets, POOL.offsets), (pool.groups, POOL.groups)
    rest = [(p.class_names, p.group_names, p.name, p.split) for p in (pool, POOL)]
    return all(torch.equal(a, b) for a, b in parts) and rest[0] == rest[1]


@pytest.mark.parametrize("in_memory", [True, False])
def test_is_built_once_and_comes_back_whole(tmp_path, in_memory):
    build = Builder()
    for _ in range(3):
        assert same(cached_pool(tmp_path, KEY, build, in_memory))
    assert build.times == 1
    assert sorted(p.suffix for p in (tmp_path / ".cache").iterdir()) == [".json", ".npy"]


def test_writing_to_a_mapped_pool_does_not_reach_the_file(tmp_path):
    cached_pool(tmp_path, KEY, Builder(), in_memory=False).images.zero_()
    assert same(cached_pool(tmp_path, KEY, Builder()))


def test_another_fingerprint_is_built_anew_and_replaces_the_old(tmp_path):
    build = Builder()
    cached_pool(tmp_path, KEY, build)
    cached_pool(tmp_path, {**KEY, "size": 3}, build)
    cached_pool(tmp_path, {**KEY, "fingerprint": "g"}, build)
    assert build.times == 3
    assert (
        len(list((tmp_path / ".cache").glob("*.npy"))) == 2
    )  # the old fingerprint's is gone, the other size's not


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [
        lambda npy, json: flip(npy),
        lambda npy, json: npy.write_bytes(npy.read_bytes()[:-5]),
        lambda npy, json: npy.write_bytes(b""),
        lambda npy, json: json.write_text(json.read_text()[:-20]),
        lambda npy, json: json.write_text("[]"),
        lambda npy, json: json.write_text(
            json.read_text().replace('"fingerprint": "f"', '"fingerprint": "g"')
        ),
        lambda npy, json: json.write_text(json.read_text().replace('"offsets": [0, 2', '"offsets": [0, 9')),
    ],
)
def test_a_damaged_cache_is_built_anew(tmp_path, damage):
    build = Builder()
    cached_pool(tmp_path, KEY, build)
    npy = next((tmp_path / ".cache").glob("*.npy"))
    damage(npy, npy.with_suffix(".json"))
    with pytest.warns(UserWarning, match="is damaged"):
        assert same(cached_pool(tmp_path, KEY, build))
    assert same(cached_pool(tmp_path, KEY, build)) and build.times == 2


def test_without_a_place_to_keep_it_the_pool_still_comes(tmp_path):
    (tmp_path / ".cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="can't keep"):
        assert same(cached_pool(tmp_path, KEY, Builder()))


def test_fingerprint_follows_names_sizes_and_times(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text("1")
        os.utime(file, ns=(10**18, 10**18))
    first = fingerprint(files, tmp_path)
    assert first == fingerprint(files, tmp_path) != fingerprint(files[:1], tmp_path)
    os.utime(files[0], ns=(10**18, 10**18 + 1))
    assert fingerprint(files, tmp_path) != first


def test_atomic_writing_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"new")
        raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old" and [p.name for p in path.parent.iterdir()] == ["file"]


def test_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("METAFILM_DATA", str(tmp_path / "env"))
    assert data_root(tmp_path) == tmp_path and data_root() == tmp_path / "env"
    monkeypatch.setenv("METAFILM_DATA", "")
    assert data_root().name == "metafilm" and data_root("~/x").is_absolute()
