"""A fitted classifier as the content of one safetensors file: its task, its examples, its parameters."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metafilm.errors import CheckpointError, MetafilmError
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.pictures import Recipe
from metafilm.learner.task import Task
from metafilm.learner.task import file as taskfile
from metafilm.storage import tensorfile

FORMAT, VERSION = "metafilm-classifier", "1"


class Fitted(NamedTuple):
    """What fitting gives.

    Attributes:
        task: adapted to the examples.
        recipe: how pictures are brought to the learner's form.
        images: the examples in that form, ``[n, C, H, W]``.
        labels: the number of each one's class, int64 ``[n]``.
        classes: the labels, sorted.
        columns: names of the columns that flat rows had, where they had names.
        features: numbers in one picture as it was given.
    """

    task: Task
    recipe: Recipe
    images: Tensor
    labels: Tensor
    classes: np.ndarray
    columns: list[str] | None
    features: int


def dumps(fitted: Fitted, parameters: dict[str, Any]) -> bytes:
    """The content. Raises MetafilmError: labels or parameters that JSON has no form for."""
    tensors, metadata = taskfile.packed(fitted.task.contents(), fitted.task.learner)
    tensors |= {"support/images": fitted.images, "support/labels": fitted.labels}
    described = {
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "recipe": asdict(fitted.recipe),
        "dtype": fitted.classes.dtype.str,
        "columns": fitted.columns,
        "features": fitted.features,
    }
    try:
        metadata |= {"format": FORMAT, "version": VERSION, "classifier": tensorfile.as_json(described)}
    except TypeError as error:
        raise MetafilmError(
            f"parameters {parameters!r} can't be written as JSON ({error}); use plain numbers and words"
        ) from error
    return tensorfile.dumps(tensors, metadata)


def _plain(value: Any) -> Any:
    """A path as a word, a number of numpy's as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def parameters_of(content: bytes, name: str) -> dict[str, Any]:
    """The parameters that the classifier was made with. Raises CheckpointError."""
    return _described(tensorfile.loads(content, name)[1], name)["parameters"]


def loads(content: bytes, name: str, learner: MetaFiLM) -> Fitted:
    """What :func:`dumps` kept. Raises CheckpointError: damaged, or of another learner or other weights."""
    tensors, metadata = tensorfile.loads(content, name)
    described = _described(metadata, name)
    try:
        images, labels = tensors.pop("support/images"), tensors.pop("support/labels")
        recipe, dtype = Recipe(**described["recipe"]), np.dtype(described["dtype"])
        columns, features = described["columns"], int(described["features"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{name} is damaged ({error}); save the classifier again") from error
    task = Task(learner, *taskfile.unpacked(name, tensors, metadata, learner))
    classes = np.array(task.classes, dtype)
    fits = (
        images.shape[1:] == learner.image_shape
        and labels.dtype == torch.int64
        and labels.shape == images.shape[:1]
        and labels.tolist()
        and 0 <= int(labels.min()) <= int(labels.max()) < len(classes)
    )
    if not fits:
        raise CheckpointError(f"{name} is damaged (its examples); fit and save the classifier again")
    return Fitted(task, recipe, images, labels, classes, columns, features)


def _described(metadata: dict[str, str], name: str) -> dict[str, Any]:
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{name} is no saved classifier: format {metadata.get('format')!r} version "
            f"{metadata.get('version')!r}, expected {FORMAT!r} {VERSION!r}"
        )
    try:
        described = json.loads(metadata["classifier"])
        if not isinstance(described["parameters"], dict):
            raise ValueError("its parameters")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{name} is damaged ({error}); save the classifier again") from error
    return described
