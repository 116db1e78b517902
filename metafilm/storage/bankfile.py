"""The file of a task bank: stacked tensors of all its tasks, and their labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metafilm.errors import CheckpointError, MetafilmError
from metafilm.storage import belonging, tensorfile

FORMAT, VERSION = "metafilm-bank", "1"


class Contents(NamedTuple):
    """T tasks.

    ``ids``, ``ways`` and ``classes`` (the labels) have an entry a task, and so have ``shots``, support images
    of each class, and ``reports``, what a gate saw: None where a task has none. ``following`` is the id that
    the next task gets. ``tensors``: ``film/NAME`` and ``norm/NAME`` ``[T, ...]``, and for each number of ways
    ``head/WAYS/NAME`` ``[n, WAYS, ...]`` of the n tasks that have it, in their order.
    """

    ids: list[int]
    ways: list[int]
    classes: list[list[Any]]
    following: int
    tensors: dict[str, Tensor]
    shots: list[list[int] | None]
    reports: list[dict[str, Any] | None]


def write(
    path: str | Path, contents: Contents, head: str, fingerprint: str, predicts_by: Mapping[str, Any]
) -> None:
    """Write atomically; ``fingerprint`` is of the learner's weights, ``predicts_by`` its settings.

    Raises:
        MetafilmError: labels that JSON has no form for.
    """
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
        "fingerprint": fingerprint,
        "predicts_by": json.dumps(predicts_by),
        "classes": classes,
        "following": str(contents.following),
        "shots": json.dumps(contents.shots),
        "gates": json.dumps(contents.reports),
    }
    tensorfile.write(path, {**contents.tensors, **index}, metadata)


def read(
    path: str | Path,
    shapes: Mapping[str, tuple[int, ...]],
    head: str,
    head_shapes: Callable[[int], Mapping[str, tuple[int | None, ...]]],
    fingerprint: str,
    predicts_by: Mapping[str, Any],
) -> Contents:
    """Read a bank for a learner.

    Args:
        shapes: of the learner's ``film/NAME`` and ``norm/NAME``, without the axis of tasks.
        head: the class of its head.
        head_shapes: number of ways -> what that head's state looks like, without the axis of tasks.
        fingerprint: of its weights.
        predicts_by: see :meth:`metafilm.learner.network.SharedNetwork.predicts_by`.

    Raises:
        CheckpointError: missing or damaged file, or a bank of another learner.
    """
    tensors, metadata = tensorfile.read(path)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is not a saved task bank: format {metadata.get('format')!r} version "
            f"{metadata.get('version')!r}, expected {FORMAT!r} {VERSION!r}"
        )
    belonging.require_head(path, metadata, head)
    try:
        numbers = {name: tensors.pop(name) for name in ("ids", "ways")}
        if odd := next((n for n, v in numbers.items() if v.dtype != torch.int64 or v.dim() != 1), None):
            raise ValueError(f"{odd} are {numbers[odd].dtype} {tuple(numbers[odd].shape)}")
        ids, ways = numbers["ids"].tolist(), numbers["ways"].tolist()
        if min(ids, default=0) < 0:
            raise ValueError(f"id {min(ids)}")
        classes, following = json.loads(metadata["classes"]), int(metadata["following"])
        shots, reports = (_each(metadata, name, len(ids)) for name in ("shots", "gates"))
        for number, counts in zip(ways, shots, strict=True):
            if counts is not None and (len(counts) != number or min(map(int, counts)) < 1):
                raise ValueError(f"{counts} support images of {number} classes")
        if odd := next((one for one in reports if one is not None and type(one) is not dict), None):
            raise ValueError(f"a gate's report {odd!r}")
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
    labels = [belonging.labels(path, json.dumps(own)) for own in classes]
    if odd := next((i for i, own in enumerate(labels) if own and len(own) != ways[i]), None):
        raise CheckpointError(
            f"{path} is damaged (task {ids[odd]} has {len(labels[odd])} labels for {ways[odd]} ways); save "
            "the bank again"
        )
    expected: dict[str, tuple[int | None, ...]] = {n: (len(ids), *s) for n, s in shapes.items()}
    for number, count in counts.items():
        of_number = head_shapes(number)
        expected |= {f"head/{number}/{name}": (count, *shape) for name, shape in of_number.items()}
    belonging.require_shapes(path, {name: tuple(value.shape) for name, value in tensors.items()}, expected)
    belonging.require_finite(path, tensors)
    belonging.require_weights(path, metadata, fingerprint)
    belonging.require_settings(path, metadata, predicts_by)
    return Contents(ids, ways, classes, following, tensors, shots, reports)


def _each(metadata: Mapping[str, str], name: str, count: int) -> list[Any]:
    """What a bank keeps of each of its tasks; None where its file is of an older version."""
    if name not in metadata:
        return [None] * count
    found = json.loads(metadata[name])
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"{name} {found} of {count} tasks")
    return found
