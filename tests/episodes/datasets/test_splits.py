"""Class splits: published ones, seeded ones, and what breaks them."""

import hashlib
import shutil
from importlib import resources

import pytest

from episodes import EpisodesError
from episodes.datasets import splits
from episodes.datasets.splits import check_disjoint, published_split, seeded_split


@pytest.mark.parametrize(
    ("name", "sizes"), [("omniglot_vinyals", (1028, 172, 423)), ("miniimagenet_ravi", (64, 16, 20))]
)
def test_published_splits(name, sizes):
    split = published_split(name)
    assert tuple(split) == ("train", "val", "test") and tuple(map(len, split.values())) == sizes
    assert len(set().union(*split.values())) == sum(sizes)
    assert all(list(members) == sorted(members) for members in split.values())


def test_members_one_can_look_up():
    omniglot, mini = published_split("omniglot_vinyals"), published_split("miniimagenet_ravi")
    assert {"Gurmukhi/character41", "Angelic/character01"} <= set(omniglot["train"])
    assert "Gurmukhi/character42" in omniglot["test"] and "Hebrew/character22" in omniglot["val"]
    assert "n01532829" in mini["train"] and "n02950826" in mini["val"]


def test_an_edited_split_is_refused(tmp_path, monkeypatch):
    shutil.copytree(str(resources.files("episodes.datasets") / "published"), tmp_path / "published")
    monkeypatch.setattr("episodes.datasets.splits.resources.files", lambda _: tmp_path)
    path = tmp_path / "published" / "miniimagenet_ravi.json"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"\n", b"\r\n"))  # a checkout with other line ends
    assert len(published_split("miniimagenet_ravi")["val"]) == 16
    path.write_bytes(raw.replace(b"n01532829", b"n01532828"))
    with pytest.raises(EpisodesError, match="miniimagenet_ravi was changed"):
        published_split("miniimagenet_ravi")


def test_an_overlap_in_a_packaged_split_is_refused_whatever_its_hash(tmp_path, monkeypatch):
    raw = b'{"train": ["a", "b"], "test": ["b"]}'
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "miniimagenet_ravi.json").write_bytes(raw)
    monkeypatch.setattr("episodes.datasets.splits.resources.files", lambda _: tmp_path)
    monkeypatch.setitem(splits._SHA256, "miniimagenet_ravi", hashlib.sha256(raw).hexdigest())
    with pytest.raises(EpisodesError, match="'b' is in both train and test"):
        published_split("miniimagenet_ravi")


def test_overlap_is_refused():
    with pytest.raises(EpisodesError, match="'b' is in both train and test"):
        check_disjoint({"train": ["a", "b"], "test": ["c", "b"]})
    with pytest.raises(EpisodesError, match="'a' is twice in train"):
        check_disjoint({"train": ["a", "a"]})
    with pytest.raises(EpisodesError, match="no published split 'cifar'"):
        published_split("cifar")


def test_seeded_split():
    names = [f"class{n:02d}" for n in range(20)]
    sizes = {"train": 12, "val": 3, "test": 5}
    split = seeded_split(names, sizes, 1)
    assert {part: len(members) for part, members in split.items()} == sizes
    assert set().union(*split.values()) == set(names)
    assert split == seeded_split(names[::-1], sizes, 1) != seeded_split(names, sizes, 2)
    assert split["val"] == ("class05", "class06", "class18")
    with pytest.raises(EpisodesError, match="don't add up to the 20 classes"):
        seeded_split(names, {"train": 12, "test": 5})
