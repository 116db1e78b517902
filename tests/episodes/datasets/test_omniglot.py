"""Omniglot's reader on a small copy of its layout; the real one is in tests/real."""

import hashlib
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

import episodes
from episodes import EpisodesError
from episodes.datasets import omniglot
from episodes.datasets.omniglot import load_omniglot, read_drawing, split_characters
from episodes.datasets.splits import published_split

SMALL = {"images_background": ["Greek", "Latin"], "images_evaluation": ["Keble"]}
SPLIT = {
    "train": ("Greek/character01", "Greek/character02", "Latin/character01"),
    "val": ("Latin/character02",),
    "test": ("Keble/character01", "Keble/character02"),
}


def draw(path, shift):
    picture = Image.new("1", (105, 105), 1)
    ImageDraw.Draw(picture).line([(10 + shift, 20), (80, 90)], fill=0, width=3)
    picture.save(path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(omniglot, "CHARACTERS", {"images_background": 4, "images_evaluation": 2})
    monkeypatch.setattr(omniglot, "published_split", lambda name: dict(SPLIT))
    number = 0
    for part, alphabets in SMALL.items():
        for alphabet in alphabets:
            for character in (1, 2):
                folder = tmp_path / "omniglot" / part / alphabet / f"character{character:02d}"
                folder.mkdir(parents=True)
                number += 1
                for drawing in range(20):
                    draw(folder / f"{number:04d}_{drawing + 1:02d}.png", drawing + number)
    return tmp_path


def test_splits_groups_and_pixels(root):
    pool = episodes.load("omniglot", "train", root=root)
    assert pool.class_names == SPLIT["train"] and pool.image_shape == (1, 28, 28)
    assert pool.counts.tolist() == [20] * 3 and [pool.group_names[g] for g in pool.groups] == [
        "Greek",
        "Greek",
        "Latin",
    ]
    assert (pool.name, pool.split) == ("omniglot", "train")
    first = read_drawing(root / "omniglot/images_background/Greek/character01/0001_01.png", 28)
    np.testing.assert_array_equal(pool.images[0], first)
    assert load_omniglot("trainval", root=root).num_classes == 4
    assert load_omniglot("test", root=root, image_size=14).image_shape == (1, 14, 14)


def test_ink_is_white_and_really_filtered(root):
    path = root / "omniglot/images_background/Greek/character01/0001_01.png"
    drawing = read_drawing(path, 28)
    values, counts = np.unique(drawing, return_counts=True)
    assert values[0] == 0 and values[counts.argmax()] == 0 and values[-1] > 128
    assert len(values) > 10  # nearest neighbour on 1-bit pictures would leave 0 and 255
    whole = read_drawing(path, 105)
    assert set(np.unique(whole)) == {0, 255}
    assert drawing.mean() == pytest.approx(whole.mean(), rel=0.2)  # ink is neither lost nor made


def test_torchvisions_layout(root):
    before = load_omniglot("test", root=root)
    (root / "omniglot").rename(root / "omniglot-py")
    assert (load_omniglot("test", root=root).images == before.images).all()


def test_lake(root):
    assert load_omniglot("train", root=root, scheme="lake").num_classes == 4
    assert load_omniglot("test", root=root, scheme="lake").class_names == SPLIT["test"]
    with pytest.raises(EpisodesError, match="no 'val'"):
        load_omniglot("val", root=root, scheme="lake")


def test_lakes_division_with_alphabets_held_out():
    held_out = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
    alphabets = dict.fromkeys([f"A{number}" for number in range(25)], 12) | dict.fromkeys(held_out, 14)
    names = [f"{name}/character{n:02d}" for name, size in alphabets.items() for n in range(1, size + 1)]
    parts = dict.fromkeys(names, "images_background") | {"B/character01": "images_evaluation"}
    split = split_characters(parts, "lake-val")
    lake = split_characters(parts, "lake")
    homes = {part: {name.partition("/")[0] for name in members} for part, members in split.items()}
    assert homes["val"] == set(held_out) and homes["train"] == set(alphabets) - set(held_out)
    assert set(split["train"] + split["val"]) == set(lake["train"]) == set(split["trainval"])
    assert split["test"] == lake["test"] == ("B/character01",)


def test_random_split_depends_on_its_seed_alone():
    names = [name for members in published_split("omniglot_vinyals").values() for name in members]
    parts = dict.fromkeys(names, "images_background")
    split = split_characters(parts, "random")
    assert {part: len(members) for part, members in split.items()} == {
        "train": 1100,
        "val": 100,
        "test": 423,
        "trainval": 1200,
    }
    assert (
        split
        == split_characters(dict.fromkeys(names[::-1], ""), "random:0")
        != split_characters(parts, "random:1")
    )
    assert hashlib.sha256(repr(split).encode()).hexdigest()[:16] == "64810de738546fb9"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "dev"}, "choose one of train, val, trainval, test"),
        ({"scheme": "mine"}, "scheme 'mine'"),
        ({"scheme": "random:x"}, "random:SEED"),
        ({"scheme": "lake:1"}, "scheme 'lake:1'"),
        ({"image_size": 0}, "image_size is 0"),
    ],
)
def test_refusals(root, options, says):
    with pytest.raises(EpisodesError, match=says):
        load_omniglot(root=root, **options)


def test_an_incomplete_copy_is_refused(root):
    greek = root / "omniglot/images_background/Greek"
    next((greek / "character01").iterdir()).unlink()
    with pytest.raises(EpisodesError, match="character01 has 19 drawings, expected 20"):
        load_omniglot(root=root)
    shutil.rmtree(greek / "character01")
    with pytest.raises(EpisodesError, match="has 3 characters, expected 4"):
        load_omniglot(root=root)


def test_what_a_mac_leaves_beside_drawings_is_none(root):
    for folder in [path for path in (root / "omniglot").rglob("*") if path.is_dir()]:
        (folder / "._0001_01.png").write_bytes(b"Mac OS X")
    assert load_omniglot(root=root).counts.tolist() == [20] * 3


def test_absent_says_what_to_do(tmp_path):
    with pytest.raises(EpisodesError, match="metafilm data prepare omniglot"):
        load_omniglot(root=tmp_path)


def test_download_unpacks_both_parts(root, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("new")
    for part in SMALL:
        with zipfile.ZipFile(elsewhere / f"{part}.zip", "w") as file:
            for path in sorted((root / "omniglot" / part).rglob("*.png")):
                file.write(path, path.relative_to(root / "omniglot"))
        monkeypatch.setitem(
            omniglot.MD5, part, hashlib.md5((elsewhere / f"{part}.zip").read_bytes()).hexdigest()
        )

    def mirror(urls, path, checksum, **_):
        assert (
            urls[0].startswith("https://")
            and path.stem in urls[0]
            and checksum == f"md5:{omniglot.MD5[path.stem]}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(elsewhere / path.name, path)

    monkeypatch.setattr("episodes.files.download.fetch", lambda *a, **k: type(a[1])(mirror(*a, **k)))
    pool = load_omniglot("test", root=elsewhere, download=True)
    assert (pool.images == load_omniglot("test", root=root).images).all()
    made = sorted(p.name for p in (elsewhere / "omniglot").iterdir() if p.name != ".lock")
    assert made == sorted(SMALL)


@pytest.mark.parametrize("target", ["nowhere.png", "0001_01.png", "/dev/zero"])
def test_a_drawing_that_is_a_link_to_nothing(root, target):
    drawing = root / "omniglot/images_background/Greek/character01/0001_01.png"
    drawing.unlink()
    drawing.symlink_to(target)
    with pytest.raises(EpisodesError, match=r"can't read .*0001_01\.png"):
        load_omniglot(root=root)
