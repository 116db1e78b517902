"""Data sets by name, and an import that stays light."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

import episodes
from episodes import ClassPool, DataSet, EpisodesError


def toy(names, start=0):
    images = torch.arange(start, start + len(names), dtype=torch.uint8).view(-1, 1, 1, 1)
    return ClassPool.from_arrays(images, range(len(names)), names)


def test_unknown_names_get_a_hint():
    with pytest.raises(EpisodesError, match="did you mean 'omniglot'"):
        episodes.load("omnglot")
    with pytest.raises(EpisodesError, match=r"There are omniglot, miniimagenet"):
        episodes.load("zzz")
    with pytest.raises(EpisodesError, match=r"use episodes\.dataset\('sinusoids'\)\.sampler"):
        episodes.load("sinusoids")


def test_prepare_and_check_go_through_the_splits():
    asked = []

    def load(split, **options):
        asked.append((split, options))
        return toy(["a", "b"], 0) if split == "train" else toy(["c"], 1)

    entry = DataSet("toy", "", ("train", "test"), load, downloads=True)
    assert entry.prepare("r", 8) == [
        "train: 2 classes, 2 images, 1 x 1 x 1",
        "test: 1 classes, 1 images, 1 x 1 x 1",
    ]
    assert asked[0] == ("train", {"root": "r", "image_size": 8, "download": True})
    assert entry.check("r") == [
        "train: 2 classes, 2 images (0 of them copies of another), 1 x 1 x 1",
        "test: 1 classes, 1 images (0 of them copies of another, 1 also in train), 1 x 1 x 1",
    ]


def test_check_notices_a_class_in_two_splits():
    entry = DataSet("toy", "", ("train", "test"), lambda split, **_: toy(["a"]), schemes=("s",))
    with pytest.raises(EpisodesError, match=r"'a' is in both train \(s\) and test \(s\)"):
        entry.check()


def test_folders_have_an_entry_too(tmp_path):
    for part in ("train", "val"):
        (tmp_path / "in" / part / part).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "in" / part / part / "1.png")
    entry = episodes.dataset(f"folder:{tmp_path / 'in'}")
    assert entry.splits == ("train", "val")
    assert entry.prepare(tmp_path, 8) == [
        f"{part}: 1 classes, 1 images, 3 x 8 x 8" for part in ("train", "val")
    ]


def test_a_folder_in_the_home_and_one_that_is_not_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for part in ("train", "val"):
        (tmp_path / "in" / part / part).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "in" / part / part / "1.png")
    assert episodes.dataset("folder:~/in").splits == ("train", "val")
    monkeypatch.chdir(tmp_path / "in")
    for name in ("folder:", "folder: "):
        with pytest.raises(EpisodesError, match="names no folder: write folder:PATH"):
            episodes.dataset(name)
    assert episodes.dataset("folder:.").splits == ("train", "val")


def test_functions_come_with_their_sampler():
    entry = episodes.dataset("sinusoids")
    assert entry.functions and entry.sampler is not None and not episodes.dataset("strokes").functions
    episode = entry.sampler(shots=3, queries=2, seed=5)[0]
    expected = episodes.SinusoidSampler(shots=3, queries=2, seed=5)[0]
    assert torch.equal(episode.support_labels, expected.support_labels)


def test_importing_stays_light():
    heavy = ["learn2learn", "wandb", "matplotlib", "sklearn", "PIL", "torchvision", "rich", "pooch"]
    code = f"import sys, episodes; print(sorted(set({heavy}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in episodes.__all__:
        assert getattr(episodes, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        episodes.nonsense  # noqa: B018
