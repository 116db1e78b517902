"""miniImageNet's layouts on a small copy; the real one is in tests/real."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import episodes
from episodes import EpisodesError
from episodes.datasets import miniimagenet
from episodes.datasets.miniimagenet import load_miniimagenet
from episodes.files.pickles import read_image_pickle

SPLIT = {"train": ("n00000001", "n00000002"), "val": ("n00000003",), "test": ("n00000004",)}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(miniimagenet, "published_split", lambda name: SPLIT)
    monkeypatch.setattr(miniimagenet, "IMAGES", 3)


def pixels(wnid, i):
    return np.full((84, 84, 3), (int(wnid[1:]) * 20, i * 10, 5), np.uint8)


def write(folder, names=lambda wnid, i: f"{wnid}{i:08d}.png"):
    for wnid in (wnid for members in SPLIT.values() for wnid in members):
        for i in range(3):
            path = folder / names(wnid, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(wnid, i)).save(path)


def tables(base, nested=False):
    for split, members in SPLIT.items():
        rows = [f"{wnid}{i:08d}.png,{wnid}" for wnid in members for i in range(3)]
        (base / f"{split}.csv").write_text("\n".join(["filename,label", *rows]) + "\n")


def content(split, keys=str):
    members = SPLIT[split]
    images = np.stack([pixels(wnid, i) for i in range(3) for wnid in members])  # classes interleaved
    rows = {keys_of(wnid, keys): list(range(c, len(images), len(members))) for c, wnid in enumerate(members)}
    return {keys_of("image_data", keys): images, keys_of("class_dict", keys): rows}


def keys_of(name, keys):
    return name.encode() if keys is bytes else name


def csv_layout(base):
    write(base / "images")
    tables(base)


def csv_beside_class_folders(base):
    for split, members in SPLIT.items():
        write(base / "all")
        for wnid in members:
            for i in range(3):
                target = base / split / wnid / f"{wnid}{i:08d}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(base / "all" / target.name, target)
    tables(base)


def class_folders(base):
    csv_beside_class_folders(base)
    for split in SPLIT:
        (base / f"{split}.csv").unlink()


def pickles(base, keys=str, protocol=4, names=("train", "val", "test")):
    base.mkdir(parents=True)
    for split, name in zip(SPLIT, names, strict=True):
        raw = pickle.dumps(content(split, keys), protocol)
        (base / f"mini-imagenet-cache-{name}.pkl").write_bytes(raw)


LAYOUTS = {
    "csv": csv_layout,
    "csv and class folders": csv_beside_class_folders,
    "class folders": class_folders,
    "pickles": pickles,
    "pickles of Python 2": lambda base: pickles(base, bytes, 2),
    "pickles of protocol 5": lambda base: pickles(base, str, 5),
    "learn2learn's pickles": lambda base: pickles(base, str, 4, ("train", "validation", "test")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", ["miniimagenet", "mini-imagenet"])
def test_every_layout_gives_the_same_pool(tmp_path, layout, place):
    LAYOUTS[layout](tmp_path / place)
    for split, members in SPLIT.items():
        pool = episodes.load("miniimagenet", split, root=tmp_path)
        expected = np.stack([pixels(wnid, i) for wnid in members for i in range(3)]).transpose(0, 3, 1, 2)
        assert pool.class_names == members and torch.equal(pool.images, torch.from_numpy(expected.copy()))
    small = load_miniimagenet("train", root=tmp_path, image_size=32)
    assert small.image_shape == (3, 32, 32) and small.images[0, :, 0, 0].tolist() == [20, 0, 5]


@pytest.mark.parametrize("layout", [csv_layout, class_folders])
def test_what_a_mac_leaves_beside_pictures_is_none(tmp_path, layout):
    layout(tmp_path / "miniimagenet")
    expected = load_miniimagenet(root=tmp_path).images
    for folder in [path for path in (tmp_path / "miniimagenet").rglob("*") if path.is_dir()]:
        (folder / "._n0000000100000000.png").write_bytes(b"Mac OS X")
        (folder / ".DS_Store").write_bytes(b"Mac OS X")
    shutil.rmtree(tmp_path / ".cache")
    assert torch.equal(load_miniimagenet(root=tmp_path).images, expected)


def test_absent_says_what_to_place_where(tmp_path):
    with pytest.raises(
        EpisodesError, match=rf"{tmp_path}/miniimagenet/\{{train,val,test\}}\.csv with .*images"
    ):
        load_miniimagenet(root=tmp_path)
    with pytest.raises(EpisodesError, match="can't be downloaded"):
        load_miniimagenet(root=tmp_path, download=True)


def replaced_by_link(target):
    def break_it(base):
        picture = base / "images" / "n0000000100000000.png"
        picture.unlink()
        picture.symlink_to(target)

    return break_it


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda b: (b / "train.csv").write_text("name,class\n"), r"has columns \['name', 'class'\]"),
        (
            lambda b: (b / "images/n0000000100000000.png").unlink(),
            r"line 2 lists n0000000100000000\.png, which is not in",
        ),
        (
            lambda b: (b / "train.csv").write_text("filename,label\nn0000000100000000.png,n00000002\n"),
            "isn't the first 9",
        ),
        (
            lambda b: shutil.copy(b / "val.csv", b / "train.csv"),
            "class n00000003 in train, but .* belongs to val",
        ),
        (
            lambda b: (b / "train.csv").write_text("filename,label\nn0000000100000000.png,n00000001\n"),
            "lacks 1 of the 2",
        ),
        (
            lambda b: (b / "images/n0000000100000000.png").write_bytes(b"torn"),
            r"can't read .*n0000000100000000\.png",
        ),
        (replaced_by_link("nowhere"), r"can't read .*n0000000100000000\.png"),
        (replaced_by_link("n0000000100000000.png"), r"can't read .*n0000000100000000\.png"),
        (
            lambda b: (b / "train.csv").write_bytes(b"filename,label\ncaf\xe9.png,n00000001\n"),
            r"can't read .*train\.csv: 'utf-8' codec",
        ),
        (
            lambda b: (b / "train.csv").write_text("filename,label\n" + "x" * 200_000),
            r"can't read .*train\.csv: field larger",
        ),
    ],
)
def test_a_broken_copy_is_refused(tmp_path, break_it, says):
    base = tmp_path / "miniimagenet"
    csv_layout(base)
    break_it(base)
    with pytest.raises(EpisodesError, match=says):
        load_miniimagenet("train", root=tmp_path)


@pytest.mark.parametrize("layout", [csv_layout, class_folders, pickles])
def test_a_copy_with_fewer_pictures_of_a_class_is_refused(tmp_path, monkeypatch, layout):
    """As an interrupted unpacking leaves it: its accuracies would be of other tasks."""
    layout(tmp_path / "miniimagenet")
    monkeypatch.setattr(miniimagenet, "IMAGES", 4)
    with pytest.raises(EpisodesError, match=r"has 3 pictures of n00000001 in train, .* \(2 classes have"):
        load_miniimagenet("train", root=tmp_path)


def test_a_pickle_of_another_split_is_refused(tmp_path):
    pickles(tmp_path / "miniimagenet", names=("val", "train", "test"))
    with pytest.raises(EpisodesError, match=r"val\.pkl has class n00000001 in val, but .* belongs to train"):
        load_miniimagenet("val", root=tmp_path)


def test_other_refusals(tmp_path):
    for options, says in [
        ({"split": "dev"}, "train, val, test"),
        ({"scheme": "x"}, "ravi"),
        ({"image_size": 0}, "is 0"),
    ]:
        with pytest.raises(EpisodesError, match=says):
            load_miniimagenet(root=tmp_path, **options)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def rows_of(members):
    return {"image_data": np.zeros((2, 8, 8, 3), np.uint8), "class_dict": {"a": members}}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Evil(eval, "open('ran', 'w')"), "it asks for builtins.eval"),
        (lambda: {"image_data": Evil(np.load, "x")}, "it asks for numpy.*load"),
        (lambda: Evil(np.ndarray, (4,), "O", bytes(32)), "can't read"),
        (lambda: {"image_data": np.array([{}], dtype=object)}, "an array of dtype 'O8'"),
        (lambda: [1, 2], "image_data should be uint8 .* found NoneType"),
        (lambda: {"image_data": np.zeros((2, 84, 84, 3))}, "found float64"),
        (lambda: {"image_data": np.zeros((2, 84, 84, 3), np.uint8)}, "class_dict should map"),
        (
            lambda: {"image_data": np.zeros((2, 8, 8, 3), np.uint8), "class_dict": {"a": [0, 2]}},
            "outside 0 to 1",
        ),
        (lambda: {"image_data": np.zeros((2, 8, 8, 3), np.uint8), "class_dict": {"a": [0, 0]}}, "rows twice"),
        (lambda: rows_of(range(10**12)), "at most 2 row numbers"),
        (lambda: rows_of("ab"), "at most 2 row numbers"),
        (lambda: rows_of([0, [1]]), "at most 2 row numbers"),
        (lambda: rows_of([0.5]), "at most 2 row numbers"),
        (lambda: rows_of([10**30]), "at most 2 row numbers"),
        (lambda: rows_of(7), "at most 2 row numbers"),
        (lambda: {"image_data": Evil(bytearray, 10**12)}, "makes bytes of int"),
    ],
)
def test_pickles_that_are_no_data_run_nothing(tmp_path, monkeypatch, made, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(made()))
    with pytest.raises(EpisodesError, match=says):
        read_image_pickle(tmp_path / "p.pkl")
    assert not (tmp_path / "ran").exists()


class Stateful(Evil):
    """A call whose result is then given a state of the file's choice."""

    def __init__(self, state, function, *arguments):
        self.call = function, arguments, state


def dtype(code, *state):
    return Stateful(state, np.dtype, code, False, True)


STOCK = (None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    "bad",
    [
        dtype("S8", 3, "|", None, None, None, -8, 1, 0),
        dtype("S8", 3, "|", None, None, None, 1 << 40, 1, 0),
        dtype("i8", 3, "<", None, None, None, -1, -1, 1),
        dtype("u1", 3, "|", (np.dtype("u1"), (3,)), None, None, -1, -1, 0),
        dtype("u1", 3, "|", None, ("a",), {"a": (np.dtype("u1"), 0)}, -1, -1, 0),
        dtype("u1", 4, "|", *STOCK, {"meta": "data"}),
        dtype("u1", 3, "x", *STOCK),
        dtype("u1", 3, "|"),
        dtype("u1"),
    ],
)
def test_only_the_state_that_numpy_writes_for_a_dtype(tmp_path, bad):
    """numpy's own __setstate__ takes some of these, and the process ends later."""
    from numpy._core.multiarray import scalar

    array = np.zeros((2, 8, 8, 3), np.uint8)
    made, call, (version, shape, _, fortran, raw) = array.__reduce__()
    for number, data in enumerate(
        (Stateful((version, shape, bad, fortran, raw), made, *call), Evil(scalar, bad, b"12345678"))
    ):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps({"image_data": data, "class_dict": {"a": [0]}}))
        with pytest.raises(EpisodesError, match=r"can't read .*a dtype"):
            read_image_pickle(path)


def test_a_pickle_changes_no_function_of_ours(tmp_path):
    from episodes.files import pickles as reader

    before = reader._bytes.__defaults__
    # _codecs.encode, given the attributes {"__defaults__": ("y",)}
    raw = b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__U\x01y\x85s\x86b."
    (tmp_path / "p.pkl").write_bytes(raw)
    with pytest.raises(EpisodesError, match="changes a function"):
        read_image_pickle(tmp_path / "p.pkl")
    assert reader._bytes.__defaults__ == before


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("turn", [np.asarray, np.asfortranarray, lambda a: a.transpose(0, 2, 1, 3)])
def test_arrays_of_every_order_and_protocol(tmp_path, protocol, turn):
    images = turn(np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8))
    big = np.array([3, 1], ">i8")
    rows = {"a": big, "b": [np.int64(0)], "c": range(2, 3)}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"image_data": images, "class_dict": rows}, protocol))
    found, classes = read_image_pickle(tmp_path / "p.pkl")
    np.testing.assert_array_equal(found, images)
    assert {name: members.tolist() for name, members in classes.items()} == {"a": [3, 1], "b": [0], "c": [2]}
    assert all(members.dtype == np.int64 and members.dtype.isnative for members in classes.values())


def test_web_pages_and_torn_pickles(tmp_path):
    (tmp_path / "p.pkl").write_bytes(b"\n<!DOCTYPE html>")
    with pytest.raises(EpisodesError, match="is a web page"):
        read_image_pickle(tmp_path / "p.pkl")
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(content("train"))[:-100])
    with pytest.raises(EpisodesError, match="can't read"):
        read_image_pickle(tmp_path / "p.pkl")
