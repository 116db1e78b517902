"""The learner that a classifier's parameters name, loaded once; and one as bytes, for pickles."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metafilm.engine.device import DeviceName, device_named
from metafilm.errors import MetafilmError
from metafilm.learner.build import is_pretrained, load_learner, pretrained_learner
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.parts import is_own
from metafilm.storage.models import model_path

SIZE = 96  # of a pre-trained network's pictures, where nothing else is said


def opened(
    learner: Any, weights: str | Path | None, image_size: int | None, device: DeviceName | None = None
) -> MetaFiLM:
    """The learner by the parameters of :class:`metafilm.FewShotClassifier`.

    Raises:
        MetafilmError: none of that name, no such device, or options that the learner can't take.
    """
    place = device_named(device or "cpu")
    if isinstance(learner, str) and is_pretrained(learner):
        file = None if weights is None else str(weights)
        return _pretrained(learner, file, _version(file), image_size, place)
    options = {"weights": weights, "image_size": image_size}
    if given := [name for name, value in options.items() if value is not None]:
        shown = type(learner).__name__ if isinstance(learner, MetaFiLM) else learner
        raise MetafilmError(
            f"{', '.join(given)}: for lite0, timm:NAME and torchvision:NAME; {shown} is taken as it was "
            "trained"
        )
    if isinstance(learner, MetaFiLM):
        if device not in (None, "auto") and learner.mean.device.type != place.type:
            raise MetafilmError(
                f"device is {device!r}, and the learner given lies on {learner.mean.device}; give "
                f"learner.to({place.type!r}), or no device"
            )
        return learner
    if isinstance(learner, dict):
        return load_learner(learner, place)
    if not isinstance(learner, str | Path):
        raise MetafilmError(f"learner is a {type(learner).__name__}; expected a name, a path or a MetaFiLM")
    return _trained(str(learner), _version(model_path(learner)), place)


Version = tuple[int, int] | None


def _version(file: str | Path | None) -> Version:
    """Of a file, so that one that was written anew is loaded anew; None: there is none."""
    if file is None or not Path(file).is_file():
        return None
    found = Path(file).stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)
def _trained(name: str, version: Version, place: torch.device) -> MetaFiLM:
    return load_learner(name, place)


@lru_cache(maxsize=4)
def _pretrained(
    name: str, weights: str | None, version: Version, image_size: int | None, place: torch.device
) -> MetaFiLM:
    size = SIZE if image_size is None else image_size
    try:
        return pretrained_learner(name, weights=weights, image_size=size).to(place)
    except MetafilmError as error:
        if image_size is not None or "does not take images of" not in str(error):
            raise
    return pretrained_learner(name, weights=weights).to(place)


def to_bytes(learner: MetaFiLM) -> tuple[bytes, Any, nn.Module | None]:
    """A learner's file, its source, and its backbone where that is not metafilm's own, which no file builds
    again. Raises MetafilmError: see :meth:`metafilm.MetaFiLM.save`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "learner.safetensors"
        learner.save(path)
        return path.read_bytes(), learner.source, None if is_own(learner.backbone) else learner.backbone


def from_bytes(content: bytes, source: Any, backbone: nn.Module | None = None) -> MetaFiLM:
    """What :func:`to_bytes` gave, as a learner."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "learner.safetensors"
        path.write_bytes(content)
        learner = load_learner(path, backbone=backbone)
    learner.source = source
    return learner
