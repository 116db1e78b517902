"""Coloured stroke characters that can be sorted in six ways: a data set without a download.

Every image is a stroke character (:mod:`episodes.datasets.strokes`) standing on a short line, in some ink on
some paper, at some place, turned some way, of some size. All six are drawn independently, so an image says
nothing about which of them an episode sorts by (Ren et al., "Flexible few-shot learning of contextual
similarity", 2020, arXiv:2012.05895). The line, twice as broad as the strokes, is what tells how far a
character nobody has seen is turned.

Ink, paper, place and turn are angles (of hue; around the middle of the picture; of the character) on a dial
of 24 positions; size is one of 20 steps of 4 % each. Every second position is a value of the training
split, and those between are values of validation and of test in turn. So no split has a value of another,
and neighbouring values of the test are 60 degrees (or 17 %) apart. An image strays from its value by at most
a third of the way to the next position.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.attribute import Attribute
from episodes.counter import Stream, uniforms
from episodes.datasets.strokes import KNOTS, MAX_STROKES, Jitter, draw_knots, nearness
from episodes.errors import EpisodesError
from episodes.pool import ClassPool
from episodes.progress import Progress
from episodes.transforms.pens import REACH

CRITERIA = ("character", "ink", "paper", "place", "turn", "size")
# Numbers of the stroke characters [first, last), and images of each.
CHARACTERS = {"train": (0, 400), "val": (600, 700), "test": (1000, 1200)}
IMAGES = {"train": 50, "val": 40, "test": 40}
_SPLIT_OF = ("train", "val", "train", "test")  # of a position, by its number modulo 4

# Lengths are in canvas units: the picture goes from -1 to 1 both ways.
_RING = 0.28  # how far from the middle a character's own middle lies
_RADII = (0.28, 0.58)  # of the circle around a character, from the smallest size to the largest
_PEN = (0.14, 0.19)  # half a stroke's width, in radii
_LINE = (0.8, (1.0, 1.15))  # half the line's length, and how far below the middle its two edges are, in radii
_STRAY = 1 / 3  # of the distance between neighbouring positions
# A character is written with a steady hand: turn and size are attributes, not accidents.
_HAND = Jitter(knot=0.06, stroke=0.05, degrees=0.0, scale=0.1, shear=0.1, move=0.0)
_AT_ONCE = 8  # characters


@dataclass(frozen=True)
class Dial:
    """Evenly spaced positions, every one a value of one split."""

    name: str
    positions: int
    spoiled_by: tuple[str, ...] = ()

    def of_split(self, split: str) -> NDArray[np.int64]:
        """The positions that are this split's values."""
        return np.array([p for p in range(self.positions) if _SPLIT_OF[p % 4] == split])

    def value_name(self, position: int) -> str:
        """Its degrees, or which step of all it is."""
        if self.name == "size":
            return f"step {position + 1} of {self.positions}"
        return f"{360 * position // self.positions} degrees"


_MAPS = ("affine", "handwriting")
_MIRRORS = ("crop-flip", "crop-flip-jitter")
_MOVES = ("shift", *_MIRRORS, *_MAPS)
DIALS = (
    Dial("ink", 24),
    Dial("paper", 24),
    Dial("place", 24, _MOVES),
    Dial("turn", 24, (*_MIRRORS, *_MAPS)),
    Dial("size", 20, _MAPS),
)


def load_criteria(
    split: str = "train",
    image_size: int = 32,
    *,
    seed: int = 0,
    images_per_character: int | None = None,
) -> ClassPool:
    """One split of the coloured characters: classes are characters, attributes are `CRITERIA`.

    Images are uint8 [classes * images, 3, image_size, image_size]. train: 400 characters, 50 images of each,
    12 values of ink, paper, place and turn and 10 of size; val: 100 characters, 40 images, 6 values (5 of
    size); test: 200 characters, 40 images, 6 other values (5 of size). Splits share neither characters nor
    values. The same arguments give the same attributes everywhere, see `checksum`; a pixel may differ by a
    grey level or two between machines whose float32 rounds differently.

    Raises EpisodesError for an unknown split, an image size below 16 or no images.
    """
    if split not in CHARACTERS:
        raise EpisodesError(f"criteria have no split {split!r}: choose one of {', '.join(CHARACTERS)}")
    count = IMAGES[split] if images_per_character is None else images_per_character
    if image_size < 16 or count < 1:
        raise EpisodesError(
            f"image_size={image_size}, images_per_character={count}: choose at least 16 and at least 1"
        )
    numbers = np.arange(*CHARACTERS[split])
    drawn = draw_properties(numbers, split, seed, count)
    strokes, knots = draw_knots(numbers, seed, count, _HAND)
    images = torch.empty(len(numbers), count, 3, image_size, image_size, dtype=torch.uint8)
    with Progress(f"drawing criteria ({split})", total=len(numbers)) as progress:
        # Characters with equally many strokes are rendered together.
        for present in range(1, MAX_STROKES + 1):
            alike = np.flatnonzero(strokes == present)
            for first in range(0, len(alike), _AT_ONCE):
                rows = alike[first : first + _AT_ONCE]
                written = placed(knots[rows, :, :present].reshape(-1, present, KNOTS, 2), drawn.of(rows))
                near = nearness(written, image_size)
                images[rows] = coloured(near, drawn.of(rows)).view(len(rows), *images.shape[1:])
                progress.advance(len(rows))
    names = tuple(f"stroke{number:04d}" for number in numbers)
    character = Attribute(
        "character", torch.arange(len(numbers)).repeat_interleave(count), names, spoiled_by=_MIRRORS
    )
    others = (
        Attribute(
            dial.name,
            torch.from_numpy(drawn.values[..., d].flatten()),
            tuple(dial.value_name(position) for position in dial.of_split(split)),
            spoiled_by=dial.spoiled_by,
        )
        for d, dial in enumerate(DIALS)
    )
    return ClassPool(
        images.flatten(0, 1),
        torch.arange(len(numbers) + 1) * count,
        names,
        name="criteria",
        split=split,
        attributes=(character, *others),
    )


def checksum(pool: ClassPool) -> str:
    """A hash of what images there are: class names, and each attribute's values and their names.

    Not of the pixels, which may differ by a grey level between machines; these numbers can't.
    """
    digest = hashlib.sha256(repr((pool.class_names, pool.offsets.tolist())).encode())
    for attribute in pool.attributes:
        digest.update(repr((attribute.name, attribute.value_names, attribute.values.tolist())).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Properties:
    """What K characters' D images each look like.

    values: [K, D, 5] int64, number of the value of each of `DIALS` within the split. places: [K, D, 5]
    float64, the same as positions on the dial, strayed. looks: [K, D, 5] float64 uniforms, which no criterion
    is about: saturation and lightness of ink and of paper, and the pen's width.
    """

    values: NDArray[np.int64]
    places: NDArray[np.float64]
    looks: NDArray[np.float64]

    def of(self, rows: NDArray[np.int64]) -> "Properties":
        """Those of some of the characters."""
        return Properties(self.values[rows], self.places[rows], self.looks[rows])


def draw_properties(numbers: NDArray[np.int64], split: str, seed: int, images: int) -> Properties:
    """Values and looks of the images of characters `numbers` [K]: each image's independent of all others."""
    draws = uniforms(seed, numbers, Stream.ATTRIBUTES, (images, 2 * len(DIALS) + 5))
    values = np.empty((*draws.shape[:2], len(DIALS)), np.int64)
    places = np.empty(values.shape, np.float64)
    for d, dial in enumerate(DIALS):
        own = dial.of_split(split)
        values[..., d] = np.floor(draws[..., 2 * d] * len(own))
        places[..., d] = own[values[..., d]] + _STRAY * (2 * draws[..., 2 * d + 1] - 1)
    return Properties(values, places, draws[..., 2 * len(DIALS) :])


def placed(knots: NDArray[np.float64], drawn: Properties) -> NDArray[np.float64]:
    """Characters [B, S, KNOTS, 2] in their size, turn and place, with the line they stand on as two
    strokes: [B, S + 2, KNOTS, 2]."""
    place, turn = (2 * math.pi * drawn.places[..., d].flatten() / DIALS[d].positions for d in (2, 3))
    radius = radii(drawn)
    points = knots.reshape(len(knots), -1, 2)
    centred = points - (points.max(1, keepdims=True) + points.min(1, keepdims=True)) / 2
    centred /= np.sqrt((centred**2).sum(-1)).max(1)[:, None, None]
    half, edges = _LINE
    below = np.stack(np.broadcast_arrays(np.linspace(-half, half, KNOTS), np.array(edges)[:, None]), -1)
    below = np.broadcast_to(below.reshape(-1, 2), (len(knots), len(edges) * KNOTS, 2))
    whole = np.concatenate([centred, below], 1)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = radius[:, None, None] * np.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)
    middle = _RING * np.stack([np.cos(place), np.sin(place)], -1)
    written = np.einsum("bij,bnj->bni", matrix, whole) + middle[:, None]
    return written.reshape(len(knots), -1, KNOTS, 2)


def radii(drawn: Properties) -> NDArray[np.float64]:
    """[B], of the circle around each character."""
    step = drawn.places[..., 4].flatten() / (DIALS[4].positions - 1)
    return _RADII[0] * (_RADII[1] / _RADII[0]) ** step


def coloured(near: Tensor, drawn: Properties) -> Tensor:
    """Nearness uint8 [B, H, H] as ink on paper: uint8 [B, 3, H, H]."""
    places, looks = drawn.places.reshape(-1, 5), drawn.looks.reshape(-1, 5)
    ink = rgb(places[:, 0] / 24, 0.85 + 0.15 * looks[:, 0], 0.4 + 0.25 * looks[:, 1])
    paper = rgb(places[:, 1] / 24, 0.3 + 0.2 * looks[:, 2], 0.85 + 0.15 * looks[:, 3])
    pens = radii(drawn) * (_PEN[0] + (_PEN[1] - _PEN[0]) * looks[:, 4])
    width = torch.from_numpy(pens).float()[:, None, None]
    pixel = 2 / near.shape[-1]
    distance = (1 - near.float() / 255) * REACH
    # A pixel's coverage falls from 1 to 0 over the pixel that the pen's edge crosses.
    cover = ((width - distance) / pixel + 0.5).clamp_(0, 1)[:, None]
    ground, pen = (torch.from_numpy(colour).float()[..., None, None] for colour in (paper, ink))
    return ((ground + cover * (pen - ground)) * 255 + 0.5).to(torch.uint8)


def rgb(
    hue: NDArray[np.float64], saturation: NDArray[np.float64], value: NDArray[np.float64]
) -> NDArray[np.float64]:
    """HSV in turns and [0, 1], each [B], as RGB in [0, 1]: [B, 3]; as colorsys.hsv_to_rgb."""
    # How far each channel's own hue (red 0, green 1/3, blue 2/3) is, in sixths of a turn.
    sixths = (np.array([5, 3, 1]) + 6 * hue[:, None]) % 6
    lack = np.clip(np.minimum(sixths, 4 - sixths), 0, 1)
    return value[:, None] * (1 - saturation[:, None] * lack)
