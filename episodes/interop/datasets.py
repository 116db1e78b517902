"""From any torch `Dataset` to a pool."""

from typing import Any

import numpy as np
from torch import Tensor

from episodes.errors import EpisodesError
from episodes.pool import ClassPool
from episodes.progress import track


def from_dataset(
    dataset: Any,
    *,
    name: str = "",
    split: str = "",
    image_size: int | None = None,
    channels: int | None = None,
    show_progress: bool | None = None,
) -> ClassPool:
    """A pool from a torch or torchvision `Dataset` of (image, label), one class a label.

    Images may be PIL pictures, arrays ([H, W] or [H, W, C] uint8) or tensors ([H, W] or [C, H, W], uint8 or
    floating in [0, 1]). channels: 1 or 3; None keeps what the first image has. image_size: PIL pictures get
    their shorter side resized to it and the centre cropped; None keeps their size, which must then be one
    for all. They are turned, laid on white and brought to 8 bits as `read_image` says.

    Labels come from `dataset.targets`, `.labels` or `._labels` where there is one a row and no
    `target_transform`, else from the items. Classes stand in the order of their labels and are named by
    `dataset.classes` where integer labels index it, else by the label.

    Raises EpisodesError for an empty dataset, labels that aren't one a row, or images that differ in shape
    or aren't in [0, 1] (take `Normalize` out of the transform: pools hold plain pictures).
    """
    size = _length(dataset)
    known = _labels_of(dataset, size)
    pixels: np.ndarray | None = None
    labels: list[Any] = []
    for row in track(range(size), f"reading {name or type(dataset).__name__}", show=show_progress):
        item = dataset[row]
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise EpisodesError(
                f"item {row} of {type(dataset).__name__} isn't (image, label) but {type(item).__name__}"
            )
        image = _pixels(item[0], channels, image_size, row)
        if pixels is None:
            channels = len(image)
            pixels = np.empty((size, *image.shape), np.uint8)
        if image.shape != pixels.shape[1:]:
            raise EpisodesError(
                f"image {row} has shape {image.shape}, the first has {pixels.shape[1:]}: "
                "give image_size, or resize in the dataset's transform"
            )
        pixels[row] = image
        labels.append(known[row] if known is not None else _label(item[1], row))
    assert pixels is not None  # _length refused an empty dataset
    distinct = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    number = {label: c for c, label in enumerate(distinct)}
    names = _class_names(dataset, distinct)
    return ClassPool.from_arrays(pixels, [number[label] for label in labels], names, name=name, split=split)


def _length(dataset: Any) -> int:
    try:
        size = len(dataset)
    except TypeError as error:
        raise EpisodesError(
            f"{type(dataset).__name__} has no length: a pool needs a map-style dataset (len and [i])"
        ) from error
    if size == 0:
        raise EpisodesError(f"{type(dataset).__name__} is empty: there is nothing to make a pool of")
    return size


def _labels_of(dataset: Any, size: int) -> list[Any] | None:
    """The labels that the dataset lists, if they are the ones its items would have."""
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for attribute in ("targets", "labels", "_labels"):
        listed = getattr(dataset, attribute, None)
        if isinstance(listed, Tensor | np.ndarray | list | tuple) and len(listed) == size:
            return [_label(label, row) for row, label in enumerate(listed)]
    return None


def _label(label: Any, row: int) -> int | str:
    """A label as an int or a string."""
    if isinstance(label, Tensor | np.ndarray | np.generic):
        if label.ndim and label.shape != (1,):
            raise EpisodesError(
                f"label {row} has shape {tuple(label.shape)}: a pool needs one class an image"
            )
        label = label.item()
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, int | str):
        raise EpisodesError(f"label {row} is {label!r}: a pool needs one integer or string an image")
    return label


def _class_names(dataset: Any, labels: list[Any]) -> list[str]:
    listed = getattr(dataset, "classes", None)
    names = [str(label) for label in labels]
    if isinstance(listed, list | tuple) and all(isinstance(c, int) and 0 <= c < len(listed) for c in labels):
        # torchvision's ImageNet lists tuples of synonyms.
        full = [", ".join(c) if isinstance(c, tuple) else str(c) for c in (listed[label] for label in labels)]
        names = full if len(set(full)) == len(full) else names
    return names


def _pixels(image: Any, channels: int | None, image_size: int | None, row: int) -> np.ndarray:
    """One image of any kind as uint8 [C, H, W]."""
    if channels not in (None, 1, 3):
        raise EpisodesError(f"channels is {channels}: choose 1 (grey), 3 (RGB) or None")
    if isinstance(image, Tensor):
        values = image.detach().cpu().numpy()
        values = values[None] if values.ndim == 2 else values
    elif isinstance(image, np.ndarray):
        values = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0) if image.ndim == 3 else image
    else:
        return _picture(image, channels, image_size, row)
    if values.ndim != 3:
        raise EpisodesError(f"image {row} has shape {values.shape}: expected [C, H, W], or [H, W] for grey")
    if np.issubdtype(values.dtype, np.floating):
        if not (values.min(initial=0) >= 0 and values.max(initial=0) <= 1):  # also refuses NaN
            raise EpisodesError(
                f"image {row} has values from {values.min():.3g} to {values.max():.3g}, "
                "expected [0, 1]: take Normalize out of the dataset's transform, or divide by 255"
            )
        values = np.rint(values * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise EpisodesError(f"image {row} is {values.dtype}: expected uint8, or floating point in [0, 1]")
    if channels is not None and len(values) != channels:
        raise EpisodesError(f"image {row} has {len(values)} channels, expected {channels}")
    if image_size is not None and values.shape[1:] != (image_size, image_size):
        raise EpisodesError(
            f"image {row} is {values.shape[1]}x{values.shape[2]}, expected {image_size}x{image_size}: "
            "only PIL pictures are resized here, tensors in the dataset's transform"
        )
    return values


def _picture(picture: Any, channels: int | None, image_size: int | None, row: int) -> np.ndarray:
    from PIL import Image

    from episodes.files.images import as_pixels

    if not isinstance(picture, Image.Image):
        raise EpisodesError(
            f"image {row} is a {type(picture).__name__}: expected a PIL picture, tensor or array"
        )
    if channels is None:
        grey = picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith(("I", "F"))
        channels = 1 if grey else 3
    return as_pixels(picture, channels, image_size)
