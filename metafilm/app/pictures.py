"""What the page sends, a drawing or a picture's file, as the learner's training pictures were."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from episodes import EpisodesError
from episodes.files.images import TooLarge, flat, open_picture, read_image
from metafilm.app.limits import MOST_BYTES, MOST_PIXELS, Refused
from metafilm.app.strokes import CENTRE, LONGER, SIDE, ink, read_strokes
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.pictures import trained_ground

LONGEST = 32 * SIDE  # side of a picture in which ink is looked for
FAINTEST = 24  # grey levels by which ink must differ from its paper


@dataclass(frozen=True)
class Look:
    """How a learner's training pictures look: channels, side, and whether they are light ink on black."""

    channels: int
    size: int
    ink: bool

    @classmethod
    def of(cls, learner: MetaFiLM) -> Look:
        """Raises Refused: a learner of functions, or of pictures that are not square."""
        shape = learner.image_shape
        if learner.regression or len(shape) != 3 or shape[1] != shape[2]:
            raise Refused(
                f"this learner takes inputs of shape {shape}; the page is for one of square pictures"
            )
        return cls(shape[0], shape[2], trained_ground(learner) == "dark")


def from_strokes(value: Any, look: Look) -> Tensor:
    """A drawing as uint8 ``[C, H, W]``: light on black where the learner knows ink, else dark on white.

    Raises:
        Refused: see :func:`metafilm.app.strokes.read_strokes`.
    """
    drawn = ink(read_strokes(value), look.size)
    drawn = drawn if look.ink else 255 - drawn
    return torch.from_numpy(np.repeat(drawn[None], look.channels, 0))


def from_file(content: bytes, look: Look) -> Tensor:
    """A picture's file as uint8 ``[C, H, W]``.

    Raises:
        Refused: too large, or no picture that can be read; says which.
    """
    if len(content) > MOST_BYTES:
        raise Refused(
            f"it has {len(content) / 1e6:.0f} MB, {MOST_BYTES / 1e6:.0f} at most: make it smaller", 413
        )
    handle, name = tempfile.mkstemp(prefix="metafilm-")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        with open_picture(path) as opened:
            width, height = opened.size
        if width * height > MOST_PIXELS:
            raise Refused(
                f"it has {width} × {height} = {width * height / 1e6:.0f} million pixels, "
                f"{MOST_PIXELS / 1e6:.0f} at most: make it smaller",
                413,
            )
        if look.ink:
            return torch.from_numpy(_ink_of(_whole(path), look.size)[None])
        return torch.from_numpy(read_image(path, look.channels, look.size))
    except (Refused, EpisodesError):
        raise
    except TooLarge as error:
        raise Refused(str(error), 413) from error
    except Exception as error:  # decoders raise whatever they like on a damaged file
        raise Refused(
            "it can't be read as a picture (PNG, JPEG, WebP, GIF, BMP or TIFF): choose another file", 415
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _whole(path: Path) -> np.ndarray:
    """A picture in grey, uint8 ``[H, W]``, nothing cropped: the character may be anywhere on it. Its shorter
    side is ``4 * SIDE``, less where it is very long."""
    from PIL import Image

    with open_picture(path) as opened:
        opened.load()
        grey = flat(opened, 1)
    scale = min(4 * SIDE / min(grey.size), LONGEST / max(grey.size))
    width, height = (max(1, round(side * scale)) for side in grey.size)
    return np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR), np.uint8)


def _ink_of(grey: np.ndarray, size: int) -> np.ndarray:
    """The character in a scan or photograph ``[H, W]``, light or dark on its paper, as Omniglot has it: ink
    255 on 0, uint8 ``[size, size]``, as large and where a character of its is."""
    from PIL import Image

    values = grey.astype(np.float32)
    away = np.abs(values - np.median(values))
    most = float(np.percentile(away, 99.5)) if away.max() > FAINTEST else 0.0
    most = max(most, float(away.max()) / 2)
    if most < FAINTEST:
        raise Refused("nothing on it differs from its background: choose a picture with darker ink")
    found = np.clip((away / most - 0.25) / 0.5, 0, 1)
    rows, columns = (np.flatnonzero((found > 0.5).any(axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    scale = LONGER / max(bottom - top, right - left)
    cut = Image.fromarray((255 * found[top:bottom, left:right]).astype(np.uint8))
    shape = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    cut = cut.resize(shape, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(cut, (round(CENTRE[0] - shape[0] / 2), round(CENTRE[1] - shape[1] / 2)))
    return np.array(canvas.resize((size, size), Image.Resampling.LANCZOS), np.uint8)
