"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake, Salakhutdinov and
Tenenbaum, 2015)."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from episodes.datasets.cache import cached_pool, fingerprint
from episodes.datasets.splits import check_disjoint, published_split, seeded_split
from episodes.errors import EpisodesError
from episodes.files.root import data_root
from episodes.pool import ClassPool

PARTS = ("images_background", "images_evaluation")
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
DRAWINGS = 20
# The release's archives, from its repository; torchvision checks the same md5.
MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
MIRRORS = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/{part}.zip",
    "https://github.com/brendenlake/omniglot/raw/master/python/{part}.zip",
    "https://cdn.jsdelivr.net/gh/brendenlake/omniglot@master/python/{part}.zip",
)
SPLITS = ("train", "val", "trainval", "test")
SCHEMES = ("vinyals", "lake", "lake-val", "random")
# Of the background set; those that Vinyals' split validates on.
VALIDATION_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")


def load_omniglot(
    split: str = "train",
    *,
    root: str | os.PathLike | None = None,
    image_size: int | None = None,
    scheme: str | None = None,
    download: bool = False,
    in_memory: bool = True,
) -> ClassPool:
    """One split of Omniglot: white ink on black, uint8 [N, 1, size, size], classes "Alphabet/character07",
    groups alphabets.

    image_size: 28 by default; the 105 x 105 drawings are shrunk by a filter that averages (Lanczos), not by
    picking pixels. scheme:

    - "vinyals" (default): 1028 train, 172 val, 423 test characters; "trainval" is the first two. Classes are
      disjoint, alphabets nearly: Gurmukhi's characters 1-41 are in train and 42-45 in test. The protocol's
      rotated classes are `pool.rotated_classes()`.
    - "lake": Lake's background set as train (964), evaluation set as test (659); alphabets disjoint, no val.
    - "lake-val": the same with 5 of the 30 background alphabets, VALIDATION_ALPHABETS, as val.
    - "random" or "random:SEED": 1100 train, 100 val, 423 test, drawn by seed (0).

    Looks for omniglot/images_background/... as released, or torchvision's omniglot-py/ (also inside
    omniglot/), under the data root. Raises EpisodesError when they are absent (and download is False),
    incomplete, or the split is unknown.
    """
    folder = data_root(root)
    scheme = scheme or "vinyals"
    _check_request(split, scheme)
    base = find_omniglot(folder)
    if base is None and download:
        base = download_omniglot(folder)
    if base is None:
        raise EpisodesError(
            f"no Omniglot under {folder}: expected {folder}/omniglot/images_background and "
            "images_evaluation. Get it with "
            "`metafilm data prepare omniglot` or download=True, or point --data-root or $METAFILM_DATA "
            "to where it is"
        )
    size = 28 if image_size is None else int(image_size)
    if size < 1:
        raise EpisodesError(f"image_size is {image_size}: give the side in pixels, 28 for instance")
    characters = list_characters(base)
    files = [path for _, _, paths in characters for path in paths]
    key = {"name": "omniglot", "split": "all", "size": size, "fingerprint": fingerprint(files, base)}
    whole = cached_pool(folder, key, lambda: _read(characters, size), in_memory)
    parts = {name: part for name, part, _ in characters}
    pool = whole.subset(split_characters(parts, scheme)[split])
    return replace(pool, split=split)


def split_characters(parts: dict[str, str], scheme: str) -> dict[str, tuple[str, ...]]:
    """Character names of each split. parts: {"Greek/character01": "images_background", ...} of all 1,623
    characters."""
    if scheme == "vinyals":
        split = published_split("omniglot_vinyals")
    elif scheme == "lake":
        split = {
            "train": tuple(name for name, part in parts.items() if part == PARTS[0]),
            "test": tuple(name for name, part in parts.items() if part == PARTS[1]),
        }
        check_disjoint(split)
    elif scheme == "lake-val":
        split = _with_alphabets_held_out(split_characters(parts, "lake"))
    else:
        seed = int(scheme.partition(":")[2] or 0)
        split = seeded_split(list(parts), {"train": 1100, "val": 100, "test": 423}, seed)
    if "val" in split:
        split["trainval"] = tuple(sorted(split["train"] + split["val"]))
    return split


def _with_alphabets_held_out(split: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Lake's division, its train without the alphabets of val."""
    parts: dict[str, list[str]] = {"train": [], "val": []}
    for name in split["train"]:
        parts["val" if name.partition("/")[0] in VALIDATION_ALPHABETS else "train"].append(name)
    return {part: tuple(names) for part, names in parts.items()} | {"test": split["test"]}


def _check_request(split: str, scheme: str) -> None:
    kind, colon, seed = scheme.partition(":")
    if kind not in SCHEMES or (colon and (kind != "random" or not seed.isdecimal())):
        raise EpisodesError(
            f'Omniglot scheme {scheme!r}: choose "vinyals", "lake", "lake-val", "random" or "random:SEED"'
        )
    if split not in SPLITS:
        raise EpisodesError(f"Omniglot split {split!r}: choose one of {', '.join(SPLITS)}")
    if scheme == "lake" and split not in ("train", "test"):
        raise EpisodesError(
            f'Lake\'s split of Omniglot has no {split!r}: choose "train" (background) or "test" '
            '(evaluation), or hold out five of its alphabets for validation with scheme="lake-val"'
        )


def find_omniglot(root: Path) -> Path | None:
    """The folder that holds images_background and images_evaluation, in the release's or torchvision's
    layout."""
    for base in (root / "omniglot", root / "omniglot-py", root / "omniglot" / "omniglot-py"):
        if all((base / part).is_dir() for part in PARTS):
            return base
    return None


def download_omniglot(root: Path, mirrors: Sequence[str] = MIRRORS) -> Path:
    """Fetch and unpack what is missing of `root`/omniglot, and return that folder. About 16 MB.

    mirrors: addresses with {part} in them. Raises EpisodesError when no mirror gives the released files.
    """
    from episodes.files.download import fetch, only_one, unpack_zip

    base = root / "omniglot"
    base.mkdir(parents=True, exist_ok=True)
    with only_one(base / ".lock"):  # another process may be unpacking the same
        for part in PARTS:
            if (base / part).is_dir():
                continue
            urls = [mirror.format(part=part) for mirror in mirrors]
            archive = fetch(urls, base / f"{part}.zip", f"md5:{MD5[part]}", max_bytes=64 << 20)
            unpack_zip(archive, part, base / part, max_bytes=256 << 20, max_members=40_000)
            archive.unlink()
    return base


def list_characters(base: Path) -> list[tuple[str, str, list[Path]]]:
    """(name, part, its 20 files) of every character, sorted by name. Raises EpisodesError naming what is
    missing."""
    found = []
    for part in PARTS:
        before = len(found)
        for alphabet in _folders(base / part):
            for character in _folders(alphabet):
                drawings = sorted(
                    path
                    for path in character.iterdir()
                    if path.suffix == ".png" and not path.name.startswith(".")  # macOS leaves ._NAME
                )
                if len(drawings) != DRAWINGS:
                    raise EpisodesError(
                        f"{character} has {len(drawings)} drawings, expected {DRAWINGS}: unpack Omniglot "
                        "again"
                    )
                found.append((f"{alphabet.name}/{character.name}", part, drawings))
        if (count := len(found) - before) != CHARACTERS[part]:
            raise EpisodesError(
                f"{base / part} has {count} characters, expected {CHARACTERS[part]}: unpack it again"
            )
    return sorted(found)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read(characters: list[tuple[str, str, list[Path]]], size: int) -> ClassPool:
    return ClassPool.from_files(
        [(name, paths) for name, _, paths in characters],
        lambda path: read_drawing(path, size),
        [name.partition("/")[0] for name, _, _ in characters],
        "omniglot",
        "all",
    )


def read_drawing(path: Path, size: int) -> np.ndarray:
    """One drawing as uint8 [1, size, size], ink 255 on 0."""
    from PIL import Image

    from episodes.files.images import open_picture

    with open_picture(path) as opened:
        # Grey first: on 1-bit pictures Pillow resizes by nearest neighbour whatever filter is asked for.
        grey = opened.convert("L")
    if grey.size != (size, size):
        grey = grey.resize((size, size), Image.Resampling.LANCZOS)
    return (255 - np.asarray(grey, np.uint8))[None]
