"""The file of a task bank: stacked tensors of all its tasks, and their labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metafilm.errors import CheckpointError, MetafilmError
from metafilm.storage import tensorfile

FORMAT, VERSION = "metafilm-bank", "1"


class Contents(NamedTuple):
    """T tasks.

    ``ids``, ``ways`` and ``classes`` (the labels) have an entry a task; ``following`` is the id that the next
    task gets. ``tensors``: ``film/NAME`` and ``norm/NAME`` ``[T, ...]``, and for each number of ways
    ``head/WAYS/NAME`` ``[n, WAYS, ...]`` of the n tasks that have it, in their order.
    """

    ids: list[int]
    ways: list[int]
    classes: list[list[Any]]
    following: int
    tensors: dict[str, Tensor]


def write(path: str | Path, contents: Contents, head: str) -> None:
    """Write atomically. Raises MetafilmError: labels that JSON has no form for."""
    try:
        classes = tensorfile.as_json(contents.classes)
    except TypeError as error:
        raise MetafilmError(
            f"the tasks' labels can't be written as JSON ({error}); use strings or numbers"
        ) from error
    index = {"ids": torch.tensor(contents.ids).long(), "ways": torch.tensor(contents.ways).long()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "head": head,
        "classes": classes,
        "following": str(contents.following),
    }
    tensorfile.write(path, {**contents.tensors, **index}, metadata)


def read(path: str | Path, shapes: Mapping[str, tuple[int, ...]], head: str) -> Contents:
    """Read a bank for a learner.

    Args:
        shapes: of the learner's ``film/NAME`` and ``norm/NAME``, without the axis of tasks.
        head: the class of its head.

    Raises:
        CheckpointError: missing or damaged file, or a bank of another learner.
    """
    tensors, metadata = tensorfile.read(path)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is not a saved task bank: format {metadata.get('format')!r} version "
            f"{metadata.get('version')!r}, expected {FORMAT!r} {VERSION!r}"
        )
    try:
        ids, ways = tensors.pop("ids").tolist(), tensors.pop("ways").tolist()
        classes, following = json.loads(metadata["classes"]), int(metadata["following"])
        if not len(set(ids)) == len(ids) == len(ways) == len(classes) or max(ids, default=-1) >= following:
            raise ValueError(f"{len(ids)} ids, {len(ways)} numbers of ways, {len(classes)} lists of labels")
        of_head = {name: value for name, value in tensors.items() if name.startswith("head/")}
        counts = Counter(ways)
        for name, value in of_head.items():
            number = int(name.split("/")[1])
            if tuple(value.shape[:2]) != (counts[number], number):
                raise ValueError(f"{name} is {tuple(value.shape)} for {counts[number]} tasks")
        if absent := counts.keys() - {int(name.split("/")[1]) for name in of_head}:
            raise ValueError(f"no head of {min(absent)} ways")
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); save the bank again") from error
    expected = {name: (len(ids), *shape) for name, shape in shapes.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items() if name not in of_head}
    differing = [
        f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ][:4]
    if metadata.get("head") != head:
        differing.append(f"its head is {metadata.get('head')}, expected {head}")
    if differing:
        raise CheckpointError(
            f"{path} was made with another learner: {'; '.join(differing)}; load it for the one it was made "
            "with"
        )
    return Contents(ids, ways, classes, following, tensors)
