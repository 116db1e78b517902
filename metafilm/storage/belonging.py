"""Whether the file of a task, or of a bank of them, is whole and belongs to the learner at hand."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from metafilm.errors import CheckpointError


def labels(path: str | Path, text: str) -> list[Any]:
    """The labels of a task from its metadata. Raises CheckpointError unless they are distinct and plain."""
    try:
        classes = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged (its labels: {error}); save the task again") from error
    plain = isinstance(classes, list) and all(isinstance(c, str | int | float | None) for c in classes)
    if not plain or len(set(classes)) != len(classes):
        raise CheckpointError(
            f"{path} is damaged: its labels are {text[:80]}, expected a list of distinct words or numbers"
        )
    return classes


def require_shapes(
    path: str | Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int | None, ...]]
) -> None:
    """Raise CheckpointError naming tensors that differ; None in an expected shape is any size."""

    def fits(name: str) -> bool:
        have, want = found.get(name), expected.get(name)
        if have is None or want is None or len(have) != len(want):
            return False
        return all(w is None or h == w for h, w in zip(have, want, strict=True))

    differing = [
        f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}"
        for name in sorted(expected.keys() | found.keys())
        if not fits(name)
    ]
    if differing:
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise CheckpointError(
            f"{path} was made with another learner: {'; '.join(differing[:4])}{more}; load it for the one it "
            "was made with"
        )


def require_head(path: str | Path, metadata: Mapping[str, str], head: str) -> None:
    """Raise CheckpointError unless the file was made with a head of this class."""
    if metadata.get("head") != head:
        raise CheckpointError(
            f"{path} was made with another learner: its head is {metadata.get('head')}, expected {head}"
        )


def require_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError naming a tensor with values that are not finite."""
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path} is damaged: {name} holds NaN or infinite values; save it again")


def require_settings(path: str | Path, metadata: Mapping[str, str], own: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless the file's tasks were predicted under these settings; files of older
    versions don't say."""
    if "predicts_by" not in metadata:
        return
    try:
        written = dict(json.loads(metadata["predicts_by"]))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged (its settings: {error}); save it again") from error
    differing = [
        f"{name} is {own.get(name)!r}, was {written.get(name)!r}"
        for name in sorted(own.keys() | written.keys())
        if own.get(name) != written.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"{path} was made with a learner that predicts otherwise than this one: {'; '.join(differing)}; "
            "load it for a learner with the settings it had"
        )


def require_weights(path: str | Path, metadata: Mapping[str, str], own: str) -> None:
    """Raise CheckpointError unless the file's tasks were adapted with the weights of this fingerprint."""
    written = metadata.get("fingerprint")
    if not written:
        warnings.warn(
            f"{path} is of a metafilm that did not note the weights of its tasks; that it belongs to this "
            "learner can't be checked. Save it again to have it checked from now on",
            stacklevel=4,
        )
    elif written != own:
        raise CheckpointError(
            f"{path} was made with the weights {written}, this learner's are {own}; load it for the learner "
            "it was made with, or adapt again"
        )
