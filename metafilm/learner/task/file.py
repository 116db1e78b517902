"""The file of one task: its deviations, what its head fitted, its labels, and which weights it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from metafilm import film, norms
from metafilm.errors import CheckpointError, MetafilmError
from metafilm.learner.gate import Gate, Report
from metafilm.learner.network import SharedNetwork
from metafilm.storage import belonging, tensorfile

FORMAT, VERSION = "metafilm-task", "1"
ESSENTIAL: dict[str, Any] = {
    "name": str,
    "image_shape": list,
    "weights": str,
    "sites": str | list,
    "head": str,
}
OPTIONS: dict[str, Any] = {
    "steps": int,
    "step_size": float,
    "proximal": float,
    "views": int,
    "view_augment": str,
    "gate": bool | dict,
    "batch": int,
    "copies": int,
    "copy_augment": str,
    "query_copies": int,
    "stage": str,
}
"""What a file may say of a pre-trained network's learner, and of what kind: arguments of
:meth:`metafilm.MetaFiLM.from_backbone`."""


class Contents(NamedTuple):
    """As the attributes of :class:`metafilm.Task`."""

    film: dict[str, Tensor]
    state: dict[str, Tensor]
    statistics: dict[str, Tensor]
    classes: list[Any]
    fingerprint: str | None
    report: Report | None = None
    shots: list[int] | None = None


def write(path: str | Path, contents: Contents, learner: SharedNetwork) -> None:
    """Write atomically. Raises MetafilmError: labels that JSON has no form for."""
    tensorfile.write(path, *packed(contents, learner))


def packed(contents: Contents, learner: SharedNetwork) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a task's file. Raises MetafilmError as :func:`write`."""
    tensors = {f"film/{name}": value for name, value in contents.film.items()}
    tensors |= {f"head/{name}": value for name, value in contents.state.items()}
    tensors |= {f"norm/{name}": value for name, value in contents.statistics.items()}
    try:
        classes = tensorfile.as_json(contents.classes)
    except TypeError as error:
        raise MetafilmError(
            f"labels {contents.classes!r} can't be written as JSON; use strings or numbers"
        ) from error
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "head": type(learner.head).__name__,
        "classes": classes,
        "fingerprint": contents.fingerprint or "",
        "predicts_by": json.dumps(learner.predicts_by()),
    }
    if contents.report is not None:
        metadata["gate"] = json.dumps(contents.report.to_dict())
    if contents.shots is not None:
        metadata["shots"] = json.dumps(contents.shots)
    if isinstance(learner.source, dict):
        metadata["backbone"] = json.dumps(learner.source)
    elif learner.source is not None:
        metadata["learner"] = learner.source
    return tensors, metadata


def source_of(path: str | Path) -> str | dict[str, Any]:
    """Name or path of the learner that a task was made with, or what builds a pre-trained network's again.

    Raises:
        CheckpointError: the file names none, or is damaged.
    """
    metadata = _read(path)[1]
    if "backbone" in metadata:
        return _backbone(path, metadata["backbone"])
    if "learner" not in metadata:
        raise CheckpointError(
            f"{path} does not say which learner it was made with; give it as the second argument of Task.load"
        )
    return metadata["learner"]


def _backbone(path: str | Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    kinds = ESSENTIAL | OPTIONS
    if (
        isinstance(found, dict)
        and ESSENTIAL.keys() <= found.keys() <= kinds.keys()
        and all(isinstance(value, kinds[name]) for name, value in found.items())
        and _is_gate(found.get("gate", True))
    ):
        return found
    raise CheckpointError(
        f"{path} has a damaged description of its network; give the learner as the second argument of "
        "Task.load"
    )


def _is_gate(found: bool | dict[str, Any]) -> bool:
    try:
        return isinstance(found, bool) or bool(Gate.from_dict(found))
    except (KeyError, TypeError, ValueError, MetafilmError):
        return False


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, metadata = tensorfile.read(path)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is not a saved task: format {metadata.get('format')!r} version "
            f"{metadata.get('version')!r}, expected {FORMAT!r} {VERSION!r}"
        )
    return tensors, metadata


def read(path: str | Path, learner: SharedNetwork) -> Contents:
    """Read a task for a learner.

    Raises:
        CheckpointError: missing or damaged file, or a task of another learner or of other weights.
    """
    return unpacked(path, *_read(path), learner)


def unpacked(
    path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str], learner: SharedNetwork
) -> Contents:
    """What :func:`packed` gave, for a learner; ``path`` and errors as of :func:`read`."""
    parts: dict[str, dict[str, Tensor]] = {"film": {}, "head": {}, "norm": {}}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        parts.setdefault(kind, {})[rest] = value.to(learner.mean.device)
    belonging.require_head(path, metadata, type(learner.head).__name__)
    _require_norms(path, bool(parts["norm"]), learner)
    classes = belonging.labels(path, metadata.get("classes", ""))
    ways = len(classes) or 1
    expected = task_shapes(learner)
    expected |= {
        f"head/{n}": (1, *s) for n, s in learner.head.state_shapes(ways, learner.feature_size).items()
    }
    belonging.require_shapes(path, {name: tuple(value.shape) for name, value in tensors.items()}, expected)
    belonging.require_finite(path, tensors)
    belonging.require_weights(path, metadata, learner.fingerprint())
    belonging.require_settings(path, metadata, learner.predicts_by())
    return Contents(
        parts["film"],
        parts["head"],
        parts["norm"],
        classes,
        metadata.get("fingerprint") or None,
        _report(path, metadata),
        _shots(path, metadata, len(classes)),
    )


def _report(path: str | Path, metadata: dict[str, str]) -> Report | None:
    try:
        return Report.from_dict(json.loads(metadata["gate"])) if "gate" in metadata else None
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} has a damaged report of the gate ({error}); adapt the task again"
        ) from error


def _shots(path: str | Path, metadata: dict[str, str], ways: int) -> list[int] | None:
    if "shots" not in metadata:
        return None
    try:
        shots = [int(count) for count in json.loads(metadata["shots"])]
        if len(shots) != ways or min(shots) < 1:
            raise ValueError(shots)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} has damaged counts of its support images ({error}); adapt the task again"
        ) from error
    return shots


def task_shapes(learner: SharedNetwork) -> dict[str, tuple[int, ...]]:
    """What a task keeps beside its head's state: ``film/NAME`` ``[C]`` and ``norm/NAME`` ``[2, C]``."""
    shapes: dict[str, tuple[int, ...]] = {
        f"film/{name}": (features,) for name, features in film.widths(learner.backbone).items()
    }
    for name, module in learner.backbone.named_modules():
        if isinstance(module, norms.Norm) and module.mode in ("support", "transductive"):
            shapes[f"norm/{name}"] = (2, module.num_features)
    return shapes


def _require_norms(path: str | Path, has_statistics: bool, learner: SharedNetwork) -> None:
    mode = norms.mode_of(learner.backbone)
    if has_statistics != (mode in ("support", "transductive")):
        raise CheckpointError(
            f"{path} was made with another learner: it has {'' if has_statistics else 'no '}statistics of "
            f"its own, and this learner's norm mode is {mode}"
        )
