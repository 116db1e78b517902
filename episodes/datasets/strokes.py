"""Stroke characters made up on the spot: a data set without a download, and the hands that write it.

A character is one to four smooth strokes whose control points are a pure function of (seed, class number);
a drawing of it moves them a little, and turns, scales and shifts the whole. What the pool stores of a
drawing is not ink but nearness: 255 on the middle line of a stroke, falling linearly to 0 at `REACH` from
it. Which pen drew it is decided by the episode: `StrokeStyle` turns nearness into ink of some width, slant,
contrast and paper, alike for all images of a task. So a task comes in a style, and there is something to
adapt to.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.counter import Stream, uniforms
from episodes.errors import EpisodesError
from episodes.pool import ClassPool
from episodes.progress import Progress
from episodes.transforms.pens import REACH

# Lengths are in canvas units: the picture goes from -1 to 1 both ways, x to the right and y down.
MAX_STROKES, KNOTS = 4, 4
DRAWINGS = 20  # of each character
# Class numbers [first, last). 700 to 899 are in no split: they served to set how hard the characters are.
SPLITS = {"train": (0, 600), "val": (600, 700), "test": (1000, 1200)}
_POINTS = 40  # per stroke; at 28 pixels neighbours are about half a pixel apart
_CLASS_DRAWS, _DRAWING_DRAWS = 64, 2 * MAX_STROKES * (KNOTS + 1) + 6
_CLASSES_AT_ONCE = 4


@dataclass(frozen=True)
class Jitter:
    """How far one drawing of a character strays: the largest values, drawn uniformly either way."""

    knot: float = 0.09  # each control point, each direction
    stroke: float = 0.08  # each stroke as a whole
    degrees: float = 10.0
    scale: float = 0.15
    shear: float = 0.15
    move: float = 0.12


def load_strokes(
    split: str = "train",
    image_size: int = 28,
    *,
    seed: int = 0,
    drawings: int = DRAWINGS,
    jitter: Jitter | None = None,
) -> ClassPool:
    """The stroke characters of one split: train (600 classes), val (100) or test (200), 20 drawings of each.

    Images are uint8 [classes * drawings, 1, image_size, image_size] holding nearness, to be drawn by a
    `StrokeStyle` (as they are they look like soft bright strokes on black, and may be used so). Class
    numbers of the splits are disjoint. The same arguments give the same classes everywhere; a pixel may
    differ by one grey level between machines whose float32 rounds differently.

    Raises EpisodesError for an unknown split, an image size below 8 or no drawings.
    """
    if split not in SPLITS:
        raise EpisodesError(f"strokes have no split {split!r}: choose one of {', '.join(SPLITS)}")
    if image_size < 8 or drawings < 1:
        raise EpisodesError(f"image_size={image_size}, drawings={drawings}: choose at least 8 and at least 1")
    first, last = SPLITS[split]
    numbers = np.arange(first, last)
    counts, knots = draw_knots(numbers, seed, drawings, jitter or Jitter())
    images = torch.empty(len(numbers), drawings, 1, image_size, image_size, dtype=torch.uint8)
    with Progress(f"drawing strokes ({split})", total=len(numbers)) as progress:
        # Characters with equally many strokes are rendered together, so that no stroke is computed in vain.
        for strokes in range(1, MAX_STROKES + 1):
            alike = np.flatnonzero(counts == strokes)
            for first_row in range(0, len(alike), _CLASSES_AT_ONCE):
                rows = alike[first_row : first_row + _CLASSES_AT_ONCE]
                drawn = nearness(knots[rows, :, :strokes].reshape(-1, strokes, KNOTS, 2), image_size)
                images[rows] = drawn.view(len(rows), drawings, 1, image_size, image_size)
                progress.advance(len(rows))
    return ClassPool(
        images.flatten(0, 1),
        torch.arange(len(numbers) + 1) * drawings,
        tuple(f"stroke{number:04d}" for number in numbers),
        name="strokes",
        split=split,
    )


def draw_knots(
    classes: NDArray[np.int64], seed: int, drawings: int, jitter: Jitter
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Control points of every drawing of some classes.

    classes: [K] class numbers. Returns the number of strokes of each class, int64 [K], and the points that
    the strokes pass through, float64 [K, drawings, MAX_STROKES, KNOTS, 2] in canvas units (strokes past the
    number are to be ignored).
    """
    draws = uniforms(seed, classes, Stream.DRAWING, (1 + drawings, max(_CLASS_DRAWS, _DRAWING_DRAWS)))
    counts, knots = _characters(draws[:, 0])
    return counts, _drawings(knots, draws[:, 1:, :_DRAWING_DRAWS], jitter)


def _characters(draws: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Number of strokes [K] and control points [K, MAX_STROKES, KNOTS, 2] of each class.

    draws: [K, _CLASS_DRAWS] uniforms.
    """
    classes = len(draws)
    counts = 1 + np.searchsorted((0.1, 0.5, 0.88), draws[:, 0], side="right")
    per_stroke = draws[:, 1 : 1 + MAX_STROKES * 12].reshape(classes, MAX_STROKES, 12)
    knots = np.zeros((classes, MAX_STROKES, KNOTS, 2))
    for s in range(MAX_STROKES):
        u = per_stroke[:, s]
        start = 1.5 * u[:, :2] - 0.75
        if s:
            # Every other stroke starts on a control point of an earlier one, as in most scripts.
            earlier, knot = (u[:, 2] * s).astype(int), (u[:, 3] * KNOTS).astype(int)
            touching = knots[np.arange(classes), earlier, knot]
            start = np.where(u[:, 4:5] < 0.5, touching, start)
        heading = 2 * math.pi * u[:, 5]
        # A stroke is nearly straight, an arc that keeps turning one way, or a wave that turns to and fro.
        # The only stroke of a character isn't straight: one straight line looks much like another.
        kind, side = np.where(counts == 1, 0.3 + 0.7 * u[:, 6], u[:, 6]), np.where(u[:, 7] < 0.5, -1.0, 1.0)
        bend = (
            np.where(kind < 0.3, 0.15, np.where(kind < 0.7, 0.6 + 0.8 * u[:, 8], 1.2 + 0.9 * u[:, 8])) * side
        )
        back = np.where(kind < 0.7, 1.0, -1.0)
        step = 0.25 + 0.3 * u[:, 9]
        knots[:, s, 0] = start
        for k in range(1, KNOTS):
            knots[:, s, k, 0] = knots[:, s, k - 1, 0] + step * np.cos(heading)
            knots[:, s, k, 1] = knots[:, s, k - 1, 1] + step * np.sin(heading)
            heading = heading + bend * back ** (k - 1)
    # Centred, and fitted so that its longer side is seven tenths of the canvas.
    present = (np.arange(MAX_STROKES) < counts[:, None])[:, :, None, None]
    low = np.where(present, knots, np.inf).min((1, 2), keepdims=True)
    high = np.where(present, knots, -np.inf).max((1, 2), keepdims=True)
    return counts, (knots - (low + high) / 2) * (1.4 / (high - low).max(-1, keepdims=True))


def _drawings(knots: NDArray[np.float64], draws: NDArray[np.float64], jitter: Jitter) -> NDArray[np.float64]:
    """Jittered copies [K, D, S, KNOTS, 2] of characters [K, S, KNOTS, 2], from uniforms [K, D, U]."""
    signed = 2 * draws - 1
    moves = signed[..., :-6].reshape(*draws.shape[:2], MAX_STROKES, KNOTS + 1, 2)
    points = knots[:, None] + jitter.knot * moves[..., :KNOTS, :] + jitter.stroke * moves[..., KNOTS:, :]
    angle, size, stretch, shear, right, down = np.moveaxis(signed[..., -6:], -1, 0)
    angle = math.radians(jitter.degrees) * angle
    wide, high = 1 + jitter.scale * (size + stretch) / 2, 1 + jitter.scale * (size - stretch) / 2
    cos, sin, slant = np.cos(angle), np.sin(angle), jitter.shear * shear
    # rotate o shear o scale
    matrix = np.stack([cos * wide, (cos * slant - sin) * high, sin * wide, (sin * slant + cos) * high], -1)
    points = np.einsum("kdij,kdsnj->kdsni", matrix.reshape(*draws.shape[:2], 2, 2), points)
    return points + jitter.move * np.stack([right, down], -1)[:, :, None, None]


def nearness(knots: NDArray[np.float64], image_size: int) -> Tensor:
    """How near each pixel is to a stroke: uint8 [B, image_size, image_size], 255 on it, 0 from `REACH` on.

    knots: [B, S, KNOTS, 2], the points that B drawings of S strokes pass through (Catmull-Rom splines with
    free ends).
    """
    points = torch.from_numpy(_curve_basis() @ knots).float()  # [B, S, _POINTS, 2]
    points = points.flatten(1, 2)
    centres = (2 * torch.arange(image_size) + 1) / image_size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    pixels = torch.stack([x.flatten(), y.flatten(), torch.ones(image_size**2)], 1)  # [pixels, 3]
    # |q - p|^2 = |q|^2 + (|p|^2 - 2 q.p): the bracket is one matrix product.
    lines = torch.cat([-2 * points, points.square().sum(-1, keepdim=True)], -1)  # [B, points, 3]
    nearest = torch.stack([(pixels @ line.T).amin(1) for line in lines])
    distance = (nearest + pixels[:, :2].square().sum(1)).clamp_(min=0).sqrt_()
    levels = (distance.mul_(-255 / REACH).add_(255.5)).clamp_(0, 255)
    return levels.to(torch.uint8).view(-1, image_size, image_size)


def _curve_basis() -> NDArray[np.float64]:
    """Weights [_POINTS, KNOTS] of the knots in each point of a Catmull-Rom spline, its end knots repeated
    by reflection."""
    ends = np.zeros((KNOTS + 2, KNOTS))
    ends[1:-1] = np.eye(KNOTS)
    ends[0, :2], ends[-1, -2:] = (2, -1), (-1, 2)
    place = np.linspace(0, KNOTS - 1, _POINTS)
    piece = np.minimum(place.astype(int), KNOTS - 2)
    t = place - piece
    cubic = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
    weights = np.stack([t**0, t, t**2, t**3], 1) @ cubic  # [_POINTS, 4]
    return np.einsum("pk,pkn->pn", weights, ends[piece[:, None] + np.arange(4)])
