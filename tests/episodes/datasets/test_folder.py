"""A folder of class folders."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

import episodes
from episodes import EpisodesError
from episodes.datasets.folder import load_folder, read_class_folders


def fill(base, classes, images=3, start=0):
    for c, name in enumerate(classes):
        (base / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (9, 8), (start + c, i, 7)).save(base / name / f"{i}.png")


def test_read_class_folders(tmp_path):
    fill(tmp_path / "in", ["dog", "cat"])
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "in" / "cat" / "notes.txt").write_text("not a picture, not meant as one")
    (tmp_path / "in" / "cat" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    (tmp_path / "in" / "loose.png").write_bytes((tmp_path / "in" / "cat" / "0.png").read_bytes())
    with (
        pytest.warns(UserWarning, match=r"1 unreadable pictures were skipped:\n.*torn\.jpg"),
        pytest.warns(UserWarning, match=r"skipped .*empty: no pictures lie in it"),
        pytest.warns(UserWarning, match=r"skipped .*loose\.png: it lies in no class's folder"),
    ):
        images, labels, names, paths, skipped = read_class_folders(tmp_path / "in", 3, 8)
    assert names == ("cat", "dog") and labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.shape == (6, 3, 8, 8) and images.dtype == torch.uint8
    assert images[:, :2, 0, 0].tolist() == [[1, 0], [1, 1], [1, 2], [0, 0], [0, 1], [0, 2]]
    assert [path.parent.name for path in paths] == ["cat"] * 3 + ["dog"] * 3
    assert [path.name for path, _ in skipped] == ["torn.jpg", "empty", "loose.png"]


def test_split_folders_are_taken_as_they_are(tmp_path):
    fill(tmp_path / "in" / "train", ["a", "b"])
    fill(tmp_path / "in" / "test", ["c"], start=9)
    pool = episodes.load(f"folder:{tmp_path / 'in'}", "test", root=tmp_path, image_size=8)
    assert pool.class_names == ("c",) and pool.image_shape == (3, 8, 8) and int(pool.images[0, 0, 0, 0]) == 9
    with pytest.raises(EpisodesError, match="none named val"):
        load_folder(tmp_path / "in", "val", root=tmp_path)
    fill(tmp_path / "in" / "val", ["a"])
    with pytest.raises(EpisodesError, match="class 'a' is in both"):
        load_folder(tmp_path / "in", "val", root=tmp_path)


def test_classes_are_divided_by_seed(tmp_path):
    names = [f"c{n:02d}" for n in range(25)]
    fill(tmp_path / "in", names, images=1)
    pools = {
        s: load_folder(tmp_path / "in", s, root=tmp_path, image_size=8) for s in ("train", "val", "test")
    }
    assert {s: pool.num_classes for s, pool in pools.items()} == {"train": 16, "val": 4, "test": 5}
    assert sorted(name for pool in pools.values() for name in pool.class_names) == names
    other = load_folder(tmp_path / "in", "test", root=tmp_path, image_size=8, scheme="split:1")
    assert other.class_names != pools["test"].class_names
    everything = load_folder(tmp_path / "in", "test", root=tmp_path, image_size=8, scheme="all")
    assert everything.class_names == tuple(names)


def test_a_changed_folder_is_read_anew(tmp_path):
    fill(tmp_path / "in" / "train", ["a", "b"])
    options = {"root": tmp_path, "image_size": 8}
    assert len(load_folder(tmp_path / "in", **options).images) == 6
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "in" / "train" / "a" / "new.png")
    assert len(load_folder(tmp_path / "in", **options).images) == 7
    assert load_folder(tmp_path / "in", channels=1, **options).image_shape == (1, 8, 8)


def test_two_folders_of_one_name_keep_their_caches(tmp_path):
    for place in ("one", "two"):
        fill(tmp_path / place / "in" / "train", ["a", "b"])
        load_folder(tmp_path / place / "in", root=tmp_path, image_size=8)
    assert len(list((tmp_path / ".cache").glob("*.npy"))) == 2


def test_divisions_of_one_folder_keep_their_caches(tmp_path):
    fill(tmp_path / "in", [f"class{number}" for number in range(10)])
    for scheme in (None, "split:1", "all"):
        load_folder(tmp_path / "in", "train", root=tmp_path, image_size=8, scheme=scheme)
    kept = set((tmp_path / ".cache").glob("*.npy"))
    assert len(kept) == 3
    load_folder(tmp_path / "in", "train", root=tmp_path, image_size=8, scheme="split:0")  # the usual one
    assert set((tmp_path / ".cache").glob("*.npy")) == kept


def test_splits_keep_their_caches_however_long_the_folder_s_name(tmp_path):
    place = tmp_path / ("photographs of leaves of trees and shrubs taken in the garden, " + 40 * "x")
    for split, start in (("train", 0), ("val", 3), ("test", 6)):
        fill(place / split, [f"{split}-a", f"{split}-b"], start=start)
        load_folder(place, split, root=tmp_path, image_size=8)
        load_folder(place, split, root=tmp_path, image_size=9)
    kept = sorted(path.name for path in (tmp_path / ".cache").glob("*.npy"))
    assert len(kept) == 6 and all(len(name) < 110 for name in kept)


def test_a_class_may_be_called_train(tmp_path):
    """A folder train is a split only where class folders lie in it."""
    names = ["train", "test", "bus", "car", "tram", "van"]
    fill(tmp_path / "in", names)
    (tmp_path / "in" / "train" / ".thumbs").mkdir()
    everything = episodes.load(f"folder:{tmp_path / 'in'}", root=tmp_path, image_size=8, scheme="all")
    assert everything.class_names == tuple(sorted(names))
    entry = episodes.dataset(f"folder:{tmp_path / 'in'}")
    assert entry.splits == ("train", "val", "test")
    found = [entry.load(s, root=tmp_path, image_size=8).class_names for s in entry.splits]
    assert sorted(name for part in found for name in part) == sorted(names)
    fill(tmp_path / "in" / "train", ["a", "b"])
    (tmp_path / "in" / "test").rename(tmp_path / "in" / "tests")
    assert episodes.dataset(f"folder:{tmp_path / 'in'}").splits == ("train",)
    assert load_folder(tmp_path / "in", root=tmp_path, image_size=8).class_names == ("a", "b")


def test_pictures_that_are_not_read_are_named(tmp_path):
    fill(tmp_path / "in" / "train", ["a", "b"], images=1)
    here = tmp_path / "in" / "train" / "a"
    Image.new("RGB", (8, 8)).save(here / "x.jfif", "jpeg")
    Image.new("RGB", (8, 8)).save(here / "y.JPE", "jpeg")
    Image.new("RGB", (8, 8)).save(here / "z.dng", "tiff")  # a camera's, which opens as its own thumbnail
    (here / "phone.HEIC").write_bytes(b"....ftypheic")
    says = r"2 unreadable .*\n.*phone\.HEIC: .*\.heic pictures are not read.*PNG or JPEG\n.*z\.dng: "
    with pytest.warns(UserWarning, match=says):
        pool = load_folder(tmp_path / "in", root=tmp_path, image_size=8)
    assert pool.counts.tolist() == [3, 1]
    (tmp_path / "in" / "train" / "loose.avif").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match=says),
        pytest.warns(UserWarning, match=r"loose\.avif: it lies in no"),
    ):
        *_, skipped = read_class_folders(tmp_path / "in" / "train", 3, 8)
    assert [path.name for path, _ in skipped] == ["phone.HEIC", "z.dng", "loose.avif"]


def test_a_folder_of_sources_is_no_class(tmp_path):
    """Classes of a seeded division would change by it, and reading end."""
    fill(tmp_path / "in", ["b", "c", "d"], images=1)
    before = load_folder(tmp_path / "in", root=tmp_path, image_size=8).class_names
    (tmp_path / "in" / "a").mkdir()
    (tmp_path / "in" / "a" / "b.svg").write_text("<svg/>")
    with pytest.warns(UserWarning, match=r"in/a: no pictures lie in it \(\.png, "):
        _, _, names, _, _ = read_class_folders(tmp_path / "in", 3, 8)
    assert names == ("b", "c", "d")
    assert load_folder(tmp_path / "in", root=tmp_path, image_size=8).class_names == before


def test_refusals(tmp_path):
    with pytest.raises(EpisodesError, match=r"no folder .*nowhere"):
        load_folder(tmp_path / "nowhere")
    (tmp_path / "in").mkdir()
    for refused in (
        lambda: load_folder(tmp_path / "in", root=tmp_path),
        lambda: read_class_folders(tmp_path / "in"),
    ):
        with pytest.raises(EpisodesError, match="holds no folders of pictures"):
            refused()
    fill(tmp_path / "in", ["a", "b"])
    with pytest.raises(EpisodesError, match="too few for a val split"):
        load_folder(tmp_path / "in", "val", root=tmp_path)
    with pytest.raises(EpisodesError, match="split 'dev'"):
        load_folder(tmp_path / "in", "dev")
    with pytest.raises(EpisodesError, match="scheme 'mine'"):
        load_folder(tmp_path / "in", scheme="mine")
    (tmp_path / "in" / "bad").mkdir()
    (tmp_path / "in" / "bad" / "x.png").write_bytes(b"x")
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(EpisodesError, match="'bad' has no readable"),
    ):
        read_class_folders(tmp_path / "in")


NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


def odd_files(folder):
    """What has a picture's name and can't be read: dangling and looping links, a pipe, a device."""
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "round.png").symlink_to("round.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    return ["gone.png", "pipe.png", "round.png", "zero.png"]


def test_links_pipes_and_devices_are_named_and_skipped(tmp_path):
    fill(tmp_path / "in" / "train", ["a", "b"])
    odd = odd_files(tmp_path / "in" / "train" / "a")
    (tmp_path / "in" / "train" / "a" / "0.png").rename(tmp_path / "in" / "train" / "a" / NOT_UTF8)
    with pytest.warns(UserWarning, match=r"4 unreadable pictures.*\n.*gone.*\n.*pipe.*regular file"):
        pool = load_folder(tmp_path / "in", root=tmp_path, image_size=8)
    assert pool.counts.tolist() == [3, 3]
    with pytest.warns(UserWarning, match="4 unreadable"):
        *_, skipped = read_class_folders(tmp_path / "in" / "train", 3, 8)
    assert [path.name for path, _ in skipped] == odd
    # a link that is mended is noticed
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "train" / "a" / "nowhere.png")
    with pytest.warns(UserWarning, match="3 unreadable"):
        assert load_folder(tmp_path / "in", root=tmp_path, image_size=8).counts.tolist() == [5, 3]


def test_a_load_from_the_cache_tells_that_pictures_are_missing(tmp_path):
    fill(tmp_path / "in" / "train", ["dog", "cat"])
    (tmp_path / "in" / "train" / "cat" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    with pytest.warns(UserWarning, match=r"1 unreadable .*\n.*torn\.jpg") as said:
        load_folder(tmp_path / "in", "train", root=tmp_path / "root", image_size=8)
    assert len(said) == 1
    with pytest.warns(UserWarning, match="1 of 7 pictures of in train could not be read and are left out"):
        load_folder(tmp_path / "in", "train", root=tmp_path / "root", image_size=8)
    (tmp_path / "in" / "train" / "cat" / "torn.jpg").unlink()
    for _ in range(2):
        load_folder(tmp_path / "in", "train", root=tmp_path / "root", image_size=8)


def test_unreadable_names_can_be_printed(tmp_path):
    fill(tmp_path / "in", ["a"])
    (tmp_path / "in" / "a" / NOT_UTF8).write_bytes(b"torn")
    with pytest.warns(UserWarning, match=r"caf\\xe9\.png") as caught:
        read_class_folders(tmp_path / "in", 3, 8)
    str(caught[0].message).encode()


def test_a_class_that_would_be_missed(tmp_path):
    fill(tmp_path / "in", ["a", "b"])
    (tmp_path / "in" / "c").symlink_to("elsewhere")
    with pytest.raises(EpisodesError, match=r"in/c is a link that leads nowhere"):
        read_class_folders(tmp_path / "in")
    (tmp_path / "in" / "c").unlink()
    (tmp_path / "in" / "b").rename(tmp_path / "in" / os.fsdecode(b"caf\xe9"))
    with pytest.raises(EpisodesError, match=r"caf\\xe9: the class's name is no UTF-8"):
        read_class_folders(tmp_path / "in")
