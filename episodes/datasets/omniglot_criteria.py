"""Omniglot to sort by character, by alphabet or by who drew it.

Drawing NNNN_07.png is drawer 7's of the 20 people who drew its alphabet. The release says that 20 people drew
each character, and numbers their drawings; that one number is one person throughout an alphabet it doesn't
say, but the drawings do. Of how a character's drawings differ in amount of ink, height, width and place, the
number explains 25 to 49 %, where shuffled numbers explain 3 %, and it explains more than they do in each of
the 50 alphabets (tests/real/test_omniglot_criteria.py). Whether two alphabets share a person is unknown.
"""

import os
from dataclasses import replace

import torch

from episodes.attribute import Attribute
from episodes.datasets.omniglot import DRAWINGS, load_omniglot
from episodes.errors import EpisodesError
from episodes.pool import ClassPool

CRITERIA = ("character", "alphabet", "drawer")
SPLITS = ("train", "val", "test")
_MIRRORS = ("crop-flip", "crop-flip-jitter")


def load_omniglot_criteria(
    split: str = "train",
    *,
    root: str | os.PathLike | None = None,
    image_size: int | None = None,
    download: bool = False,
    in_memory: bool = True,
) -> ClassPool:
    """One split of Omniglot with attributes `CRITERIA`; images and other arguments as of `load_omniglot`.

    Alphabets are disjoint, as in Lake's division: test is his evaluation set (20 alphabets, 659 characters),
    train and val are his background set, 25 alphabets and 5. Characters are drawn within one alphabet, and so
    are drawers: "Greek/drawer07" drew each of Greek's 24 characters once. Raises EpisodesError as
    `load_omniglot` does.
    """
    if split not in SPLITS:
        raise EpisodesError(f"omniglot-criteria has no split {split!r}: choose one of {', '.join(SPLITS)}")
    pool = load_omniglot(
        split, root=root, image_size=image_size, scheme="lake-val", download=download, in_memory=in_memory
    )
    return replace(pool, name="omniglot-criteria", split=split, attributes=_attributes(pool))


def _attributes(pool: ClassPool) -> tuple[Attribute, ...]:
    """Characters come with their 20 drawings in the order of the drawers."""
    assert pool.groups is not None  # Omniglot's groups are its alphabets
    characters = torch.arange(pool.num_classes).repeat_interleave(DRAWINGS)
    alphabets = pool.groups[characters]
    drawers = alphabets * DRAWINGS + torch.arange(DRAWINGS).repeat(pool.num_classes)
    names = tuple(f"{alphabet}/drawer{d + 1:02d}" for alphabet in pool.group_names for d in range(DRAWINGS))
    groups = torch.arange(len(pool.group_names)).repeat_interleave(DRAWINGS)
    return (
        Attribute("character", characters, pool.class_names, pool.groups, _MIRRORS),
        Attribute("alphabet", alphabets, pool.group_names, None, _MIRRORS),
        Attribute("drawer", drawers, names, groups, (*_MIRRORS, "affine", "handwriting")),
    )
