"""Omniglot's three attributes, on a small copy of its folders."""

import numpy as np
import pytest
import torch
from PIL import Image

import episodes
from episodes import CriterionSampler, EpisodesError
from episodes.datasets import omniglot

ALPHABETS = {
    "images_background": {"Greek": 3, "Hebrew": 2, "Latin": 2},
    "images_evaluation": {"Angelic": 2},
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    counts = {part: sum(alphabets.values()) for part, alphabets in ALPHABETS.items()}
    monkeypatch.setattr(omniglot, "CHARACTERS", counts)
    number = 0
    for part, alphabets in ALPHABETS.items():
        for alphabet, characters in alphabets.items():
            for character in range(characters):
                folder = tmp_path / "omniglot" / part / alphabet / f"character{character + 1:02d}"
                folder.mkdir(parents=True)
                number += 1
                for drawer in range(20):
                    pixels = np.full((28, 28), 255, np.uint8)
                    pixels[number, drawer] = 0  # a row for the character, a column for the drawer
                    Image.fromarray(pixels).save(folder / f"{number:04d}_{drawer + 1:02d}.png")
    return tmp_path


def load(split, root):
    return episodes.load("omniglot-criteria", split, root=root)


def test_each_image_has_its_character_alphabet_and_drawer(root):
    pool = load("train", root)
    character, alphabet, drawer = pool.attributes
    assert pool.class_names == character.value_names and pool.group_names == ("Greek", "Latin")
    for n, image in enumerate(pool.images[:, 0]):
        row, column = map(int, image.nonzero()[0])
        name = character.value_names[character.values[n]]
        number = ["Greek/character01", "Greek/character02", "Greek/character03"]
        number += ["", "", "Latin/character01", "Latin/character02"]
        assert name == number[row - 1]
        assert alphabet.value_names[alphabet.values[n]] == name.partition("/")[0]
        assert drawer.value_names[drawer.values[n]] == f"{name.partition('/')[0]}/drawer{column + 1:02d}"


def test_splits_have_alphabets_of_their_own(root):
    names = {split: load(split, root).group_names for split in ("train", "val", "test")}
    assert names == {"train": ("Greek", "Latin"), "val": ("Hebrew",), "test": ("Angelic",)}
    assert (load("val", root).name, load("val", root).split) == ("omniglot-criteria", "val")


def test_drawers_and_characters_are_compared_within_an_alphabet(root):
    pool = load("train", root)
    episode = CriterionSampler(pool, 2, 1, 1).batch(range(60))
    alphabets = pool.attributes[1].values[torch.cat([episode.support_ids, episode.query_ids], 1)]
    within = (alphabets == alphabets[:, :1]).all(1)
    assert torch.equal(within, episode.pool_ids != 1)
    assert (alphabets[:, 0] != alphabets[:, 1])[episode.pool_ids == 1].all()


def test_bad_requests(root):
    with pytest.raises(EpisodesError, match="choose one of train, val, test"):
        load("trainval", root)
    with pytest.raises(EpisodesError, match="no schemes"):
        episodes.load("omniglot-criteria", "train", root=root, scheme="lake")
