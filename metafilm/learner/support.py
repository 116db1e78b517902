"""A support set as people have it: pictures of any kind and labels of any kind, as one episode."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from episodes import Episode
from metafilm.errors import MetafilmError

# What a resampling filter may overshoot by; pixels in 0 ... 255 and normalised ones are far outside.
LOWEST, HIGHEST = -0.25, 1.25
NUMBERS = "fiub"  # NumPy's kinds


def as_pictures(images: Any, shape: tuple[int, ...]) -> Tensor:
    """Images as one tensor ``[n, *shape]``, floats in [0, 1].

    Args:
        images: a tensor ``[n, C, H, W]``; an array of that shape, ``[n, H, W, C]``, or ``[n, H, W]`` for grey
            ones; or a sequence of such images or of PIL pictures. Floating point in [0, 1], or uint8. For
            vectors ``[n, features]``.
        shape: ``(C, H, W)``, or ``(features,)``.

    Raises:
        MetafilmError: another shape, integers other than uint8, values not finite or far from [0, 1].
    """
    values = images if isinstance(images, Tensor) else _stacked(images, shape)
    if values.dim() != len(shape) + 1 or tuple(values.shape[1:]) != shape:
        raise MetafilmError(
            f"images have shape {tuple(values.shape)}, this learner expects (n, "
            f"{', '.join(map(str, shape))}); resize or convert them first"
        )
    if values.dtype == torch.uint8:
        return values.float() / 255
    if not values.is_floating_point():
        raise MetafilmError(f"images are {values.dtype}; give float in [0, 1], or uint8")
    if values.numel():
        _check_range(values, vectors=len(shape) == 1)
    return values


def _check_range(values: Tensor, vectors: bool) -> None:
    low, high = (float(end) for end in values.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int((~values.isfinite()).sum())
        raise MetafilmError(f"{bad} values of the images are NaN or infinite; look where they come from")
    if vectors or (low >= LOWEST and high <= HIGHEST):
        return
    advice = (
        "divide by 255, or give them as uint8"
        if low >= 0
        else "the learner normalises by itself: leave it out"
    )
    raise MetafilmError(f"pixels go from {low:.3g} to {high:.3g}, expected floats in [0, 1]; {advice}")


def _stacked(images: Any, shape: tuple[int, ...]) -> Tensor:
    """An array, or a sequence of arrays, tensors and PIL pictures, as one tensor with channels first."""
    if isinstance(images, np.ndarray):
        if images.dtype.kind not in NUMBERS:
            raise MetafilmError(f"images are an array of {images.dtype}; give one of floats, or of uint8")
        return _tensor(_channels_first(images, shape, first=1))
    if isinstance(images, str | bytes) or not hasattr(images, "__iter__"):
        raise MetafilmError(
            f"images are a {type(images).__name__}; give a tensor, an array, or a list of pictures"
        )
    parts = [_one(image, shape, i) for i, image in enumerate(images)]
    if not parts:
        return torch.empty(0, *shape)
    if odd := next((i for i, part in enumerate(parts) if part.shape != parts[0].shape), None):
        raise MetafilmError(
            f"image {odd} has shape {tuple(parts[odd].shape)}, image 0 has {tuple(parts[0].shape)}; bring "
            f"them to one size, {' x '.join(map(str, shape[1:]))} for this learner"
        )
    if odd := next((i for i, part in enumerate(parts) if part.dtype != parts[0].dtype), None):
        raise MetafilmError(
            f"image {odd} is {parts[odd].dtype}, image 0 is {parts[0].dtype}; give all as floats or all "
            "as uint8"
        )
    return torch.stack(parts)


def _one(image: Any, shape: tuple[int, ...], position: int) -> Tensor:
    if isinstance(image, Tensor):
        return image
    if hasattr(image, "convert") and hasattr(image, "getbands"):  # a PIL picture, of any mode
        image = np.array(
            image.convert("L" if shape[0] == 1 else "RGB"), np.uint8
        )  # a copy: its own is read-only
    try:
        array = np.asarray(image)
    except (ValueError, TypeError):
        array = np.asarray(None)  # rows of different lengths, or of things that are no numbers
    if array.dtype.kind not in NUMBERS:
        raise MetafilmError(
            f"image {position} is a {type(image).__name__}; give PIL pictures, arrays or tensors, all of "
            "one kind"
        )
    return _tensor(_channels_first(array, shape, first=0))


def _tensor(array: np.ndarray) -> Tensor:
    """Of numbers in whatever order of their bytes."""
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _channels_first(array: np.ndarray, shape: tuple[int, ...], first: int) -> np.ndarray:
    """``first``: axes before those of an image."""
    if len(shape) != 3:
        return array
    if array.ndim == first + 2 and shape[0] == 1:
        return np.expand_dims(array, first)
    behind = array.ndim == first + 3 and array.shape[first:] == (*shape[1:], shape[0])
    return np.moveaxis(array, -1, first) if behind and array.shape[first:] != shape else array


def support_episode(
    images: Tensor, labels: Sequence[Any] | Tensor, regression: bool
) -> tuple[Episode, list[Any]]:
    """One task's support set as an episode, and the label of each of its classes.

    Args:
        images: ``[S, ...]`` as :func:`as_pictures` gives them.
        labels: S labels of any hashable kind; for regression y ``[S, 1]``.

    Returns:
        The episode, whose one query is its first support image (the queries come later), and the classes in
        the order of their numbers; none for regression.

    Raises:
        MetafilmError: counts that don't fit, labels that are no single values, or fewer than two classes.
    """
    if len(images) == 0 or len(labels) != len(images):
        raise MetafilmError(
            f"{len(labels)} labels for {len(images)} support images; give one label per image, and at least "
            "one image"
        )
    if regression:
        classes, ways = [], 0
        targets = torch.as_tensor(labels, dtype=images.dtype, device=images.device)
        targets = targets.reshape(1, len(images), -1).clone()
    else:
        values = _label_values(labels)
        classes = class_order(values)
        ways = len(classes)
        if ways < 2:
            raise MetafilmError(
                f"all support images have the label {classes[0]!r}; give images of at least two classes"
            )
        position = {label: i for i, label in enumerate(classes)}
        targets = torch.tensor([[position[value] for value in values]], device=images.device)
    episode = Episode(
        support_images=images.unsqueeze(0),
        support_labels=targets,
        query_images=images[:1].unsqueeze(0),
        query_labels=targets[:, :1],
        ways=ways,
        index=torch.zeros(1, dtype=torch.long),
    )
    return episode, classes


def _label_values(labels: Sequence[Any] | Tensor) -> list[Any]:
    """Labels as values of Python's own. Raises MetafilmError: a label that is a list of some."""
    shape = tuple(getattr(labels, "shape", (len(labels),)))
    if len(shape) > 1:
        raise MetafilmError(
            f"labels have shape {shape}, expected ({shape[0]},), one value for each image; flatten them first"
        )
    values = labels.tolist() if isinstance(labels, Tensor) else labels
    return [_label_value(value, position) for position, value in enumerate(values)]


def _label_value(label: Any, position: int) -> Any:
    try:
        value = label.item() if hasattr(label, "item") else label
        hash(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MetafilmError(
            f"label {position} is {label!r}, a {type(label).__name__}; give one value for each image, "
            "such as a word or a number"
        ) from error
    return value


def class_order(labels: Sequence[Hashable]) -> list[Any]:
    """The distinct labels, sorted where they can be compared, else in the order they first come."""
    distinct = list(dict.fromkeys(labels))
    try:
        return sorted(distinct)  # type: ignore[type-var]
    except TypeError:
        return distinct
