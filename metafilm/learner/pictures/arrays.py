"""Pictures in any form as one tensor of a given shape: files, Pillow's, arrays, tensors, flat rows."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from episodes.files.images import as_pixels, read_image
from metafilm.errors import MetafilmError
from metafilm.learner.support import HIGHEST, LOWEST

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's "L"
Shape = tuple[int, int, int]


def parts_of(pictures: Any, shape: Shape, told: bool) -> list[Tensor]:
    """Batches ``[n, C', H', W']`` of any channels and size, files and Pillow's pictures in the final ones;
    rows as they are."""
    if isinstance(pictures, str | os.PathLike) or not hasattr(pictures, "__len__"):
        raise MetafilmError(
            f"pictures are a {type(pictures).__name__}; give an array, a tensor, or a list of pictures or "
            "paths"
        )
    if hasattr(pictures, "to_numpy"):  # a table or a column of pandas
        pictures = pictures.to_numpy()
    if isinstance(pictures, np.ndarray) and pictures.dtype.kind in "OU" and pictures.ndim == 1:
        pictures = list(pictures)
    if (
        isinstance(pictures, Sequence)
        and len(pictures)
        and isinstance(pictures[0], list | tuple | float | int)
    ):
        try:
            pictures = np.asarray(pictures)
        except ValueError as error:
            raise MetafilmError(
                "pictures are lists of rows of different lengths; give each picture its own array, or all of "
                "one size"
            ) from error
    if isinstance(pictures, Tensor | np.ndarray):
        return [_batch(pictures, shape, told)] if len(pictures) else []
    return [_one(picture, i, shape) for i, picture in enumerate(pictures)]


def _one(picture: Any, position: int, shape: Shape) -> Tensor:
    """One picture of a list, ``[1, C', H', W']``."""
    side = max(shape[1:])
    if isinstance(picture, str | os.PathLike):
        try:
            return torch.from_numpy(read_image(Path(picture), shape[0], side))[None]
        except Exception as error:  # decoders raise whatever they like on a damaged file
            raise MetafilmError(f"can't read {picture}: {error}; replace it by a good copy") from error
    if hasattr(picture, "convert") and hasattr(picture, "getbands"):  # Pillow's
        return torch.from_numpy(as_pixels(picture, shape[0], side))[None]
    if isinstance(picture, Tensor | np.ndarray) and picture.ndim in (2, 3):
        return _batch(picture[None], shape, True)
    raise MetafilmError(
        f"picture {position} is a {type(picture).__name__}; give paths, PIL pictures, or arrays and tensors "
        "(H, W), (C, H, W) or (H, W, C)"
    )


def _batch(values: Tensor | np.ndarray, shape: Shape, told: bool) -> Tensor:
    """Arrays as a tensor ``[n, C', H', W']`` with channels first, or rows as they are; uint8 or float32."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise MetafilmError(
                f"pictures are an array of {values.dtype}; give numbers, paths or PIL pictures"
            )
        # a copy: torch takes neither negative strides nor what may not be written to
        values = torch.from_numpy(np.array(values, np.uint8 if values.dtype == np.uint8 else np.float32))
    values = values.detach()
    values = values if values.dtype == torch.uint8 else values.to(torch.float32)
    if values.dim() > 2 and 0 in values.shape[1:]:
        raise MetafilmError(
            f"pictures of shape {tuple(values.shape[1:])} have no pixels; look where they come from"
        )
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise MetafilmError(f"{bad} values of the pictures are NaN or infinite; look where they come from")
    if values.dim() == 2:
        columns = values.shape[1]
        if not columns:
            raise MetafilmError(f"rows of shape {tuple(values.shape)} hold no pictures; give (n, H * W)")
        side = _side(columns)
        if not told and columns not in (side * side, math.prod(shape)):
            warnings.warn(
                f"rows of {columns} numbers are no square pictures: they are filled up to {side} x {side}; "
                "give pictures as (n, H, W) where they are of another shape",
                stacklevel=5,
            )
        return values
    if values.dtype != torch.uint8 and values.numel() and float(values.min()) < LOWEST:
        raise MetafilmError(
            f"pixels go from {float(values.min()):.3g} to {float(values.max()):.3g}, expected none below 0; "
            "the learner normalises by itself: leave it out"
        )
    if values.dim() == 3:
        return values.unsqueeze(1)
    if values.dim() == 4:
        # one's own shape first; then channels are the axis that is short, the first one where both are
        first = tuple(values.shape[1:]) == shape or values.shape[1] in (1, 3, 4)
        if first or values.shape[3] in (1, 3, 4):
            return values if first else values.movedim(3, 1)
    raise MetafilmError(
        f"pictures have shape {tuple(values.shape)}; expected (n, H, W), (n, C, H, W) or (n, H, W, C) with "
        "1, 3 or 4 channels, or rows (n, H * W) of square pictures"
    )


def _side(columns: int) -> int:
    """Of the least square that holds so many pixels."""
    return math.isqrt(columns - 1) + 1


def unflattened(rows: Tensor, shape: Shape) -> Tensor:
    """``[n, H * W]`` as ``[n, 1, H, W]``, filled up with black; rows of the learner's own size in its
    shape."""
    columns = rows.shape[1]
    if columns == math.prod(shape):
        return rows.unflatten(1, shape)
    side = _side(columns)
    return F.pad(rows, (0, side * side - columns)).unflatten(1, (1, side, side))


def ends(parts: list[Tensor]) -> tuple[float, float]:
    """The values of black and white in what is not uint8.

    [0, 1] where the values lie there, 255 where they come near it from 0; else 0, or the least of values
    below it, and the largest.

    Raises:
        MetafilmError: masks of 0 and 1 as uint8, which would all be black.
    """
    found = [part.aminmax() for part in parts if part.dtype != torch.uint8]
    if not found:
        if max((int(part.max()) for part in parts if part.numel()), default=0) == 1:
            raise MetafilmError(
                "these pictures are uint8, which goes to 255, and their largest value is 1; give masks "
                "as bool, or multiply by 255"
            )
        return 0.0, 1.0
    low, high = min(float(ends.min) for ends in found), max(float(ends.max) for ends in found)
    if low >= LOWEST and high <= HIGHEST:
        return 0.0, 1.0
    if low >= 0:
        return 0.0, 255.0 if 127 < high <= 255 else high
    return low, high if high > low else low + 1


def require_range(parts: list[Tensor], white: float) -> None:
    """Raise MetafilmError where values other than uint8 are of another range than those a recipe was made of:
    near [0, 1] here and up to 255 there, or the reverse."""
    high = max((float(part.max()) for part in parts if part.dtype != torch.uint8 and part.numel()), default=0)
    if white == 1 and high > HIGHEST:
        known, todo = "lay in [0, 1] or were uint8", "give uint8, or divide by 255"
    elif white == 255 and 0 < high <= 1:
        known, todo = "went to 255", "multiply by 255"
    else:
        return
    raise MetafilmError(f"values of these pictures go to {high:.4g}, those of the examples {known}; {todo}")


def stacked(parts: list[Tensor], shape: Shape, black: float, white: float) -> Tensor:
    """All as one tensor ``[n, *shape]``: uint8 where all parts are, else floats in [0, 1]."""
    if not parts:
        return torch.empty(0, *shape)
    plain = all(part.dtype == torch.uint8 for part in parts)
    done = []
    for part in parts:
        if part.dtype != torch.uint8 and (black, white) != (0.0, 1.0):
            part = ((part - black) / (white - black)).clamp(0, 1)
        elif part.dtype == torch.uint8 and not plain:
            part = part.to(torch.float32) / 255
        part = unflattened(part, shape) if part.dim() == 2 else part
        done.append(sized(with_channels(part, shape[0]), shape[1], shape[2]))
    return done[0] if len(done) == 1 else torch.cat(done)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """``[n, 1, 3 or 4, H, W]`` as grey or colour; what is transparent lies on white. uint8 stays uint8."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    values, top = images.to(torch.float32), 255 if images.dtype == torch.uint8 else 1
    if values.shape[1] == 4:
        cover = values[:, 3:] / top
        values = values[:, :3] * cover + top * (1 - cover)
    if channels == 1:
        values = (values * values.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    return values.round().to(torch.uint8) if top == 255 else values


def sized(images: Tensor, height: int, width: int) -> Tensor:
    """``[n, C, h, w]`` resized until it covers height x width (bilinear, antialiased), then its middle."""
    h, w = images.shape[2:]
    if (h, w) != (height, width):
        scale = max(height / h, width / w)
        size = (max(height, round(h * scale)), max(width, round(w * scale)))
        if size != (h, w):
            images = F.interpolate(images.contiguous(), size, mode="bilinear", antialias=True)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        images = images[:, :, top : top + height, left : left + width]
    return images.contiguous()
