"""Which classes belong to which split: written in the package, hashed, and checked for overlap each time it
is used."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources

from episodes.counter import Stream, first_of_shuffled, words
from episodes.errors import EpisodesError

# Of the files' bytes in published/: a split that was edited by accident isn't the published one any more.
_SHA256 = {
    "omniglot_vinyals": "066ae7151a7fed8eed764b8da9e891b7fe932c01666217bb2dd02eed9b4cca2b",
    "miniimagenet_ravi": "b70980f486de7f37465934ef0eb3e560ded7afb95a2e35a3e75c7216f59df454",
}


def published_split(name: str) -> dict[str, tuple[str, ...]]:
    """The class names of each split, sorted: {"train": ..., "val": ..., "test": ...}.

    name: "omniglot_vinyals" (1028/172/423 characters, "Alphabet/character07"; Vinyals et al. 2016 as
    published by Snell et al. 2017) or "miniimagenet_ravi" (64/16/20 WordNet ids; Ravi and Larochelle 2017).
    Raises EpisodesError when the packaged file isn't the one that was published or its splits share a class.
    """
    if name not in _SHA256:
        raise EpisodesError(f"no published split {name!r}: there are {sorted(_SHA256)}")
    raw = (resources.files("episodes.datasets") / "published" / f"{name}.json").read_bytes()
    # Line ends are no part of the split: a checkout may turn them into CRLF.
    if hashlib.sha256(raw.replace(b"\r\n", b"\n")).hexdigest() != _SHA256[name]:
        raise EpisodesError(f"the packaged split {name} was changed: reinstall the package")
    content = json.loads(raw)
    split = {part: tuple(sorted(_expand(members))) for part, members in content.items()}
    check_disjoint(split)
    return split


def _expand(members: list[str] | dict[str, str]) -> list[str]:
    """Class names as listed, or {"Greek": "1-3,7"} -> Greek/character01, 02, 03, 07."""
    if isinstance(members, list):
        return members
    names = []
    for alphabet, numbers in members.items():
        for span in numbers.split(","):
            low, _, high = span.partition("-")
            names += [f"{alphabet}/character{n:02d}" for n in range(int(low), int(high or low) + 1)]
    return names


def check_disjoint(split: Mapping[str, Sequence[str]]) -> None:
    """EpisodesError naming a class that is in a split twice, or in two splits."""
    home: dict[str, str] = {}
    for part, members in split.items():
        for name in members:
            if name in home:
                where = f"twice in {part}" if home[name] == part else f"in both {home[name]} and {part}"
                raise EpisodesError(f"class {name!r} is {where}: splits must be disjoint")
            home[name] = part


def seeded_split(names: Sequence[str], sizes: dict[str, int], seed: int = 0) -> dict[str, tuple[str, ...]]:
    """The classes shuffled by the seed and dealt out: sizes {"train": 1100, "val": 100, "test": 423}, say.

    Depends on the set of names and the seed alone, not on their order or the machine. Raises EpisodesError
    when the sizes don't add up to the number of names.
    """
    if sum(sizes.values()) != len(names) or min(sizes.values()) < 0:
        raise EpisodesError(f"split sizes {sizes} don't add up to the {len(names)} classes there are")
    ordered = sorted(names)
    shuffle = first_of_shuffled(words(seed, [0], Stream.SPLIT, (len(ordered),))[0], len(ordered))
    split, start = {}, 0
    for part, size in sizes.items():
        split[part] = tuple(sorted(ordered[c] for c in shuffle[start : start + size]))
        start += size
    check_disjoint(split)
    return split
