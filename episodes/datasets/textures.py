"""Nine textures drawn by rule, each with a palette of its own: styles that nobody holds rights to.

A texture is a pure function of (name, number, seed) and is drawn with additions, products and comparisons
alone, so that it is the same everywhere. It is no few-shot data set, so it has no place in the registry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from episodes.counter import uniforms
from episodes.errors import EpisodesError

PALETTES: dict[str, tuple[str, ...]] = {
    "stripes": ("1d3557", "f1faee", "e63946"),
    "checks": ("2b2d42", "edf2f4", "8d99ae"),
    "dots": ("fff3b0", "e09f3e", "9e2a2b"),
    "weave": ("606c38", "dda15e", "283618"),
    "brick": ("e8e0d5", "a44a3f", "6f1d1b"),
    "marble": ("fdfcfb", "8fa3ad", "22333b"),
    "halftone": ("fefae0", "111111"),
    "brush": ("023e8a", "00b4d8", "caf0f8", "ffb703"),
    "zigzag": ("ffcdb2", "6d597a", "b56576"),
}
"""The textures, and their colours as hexadecimal RGB."""
STYLES = tuple(PALETTES)[:8]
NINTH = tuple(PALETTES)[8]
"""The one that is kept back, to be learned when the others are."""
NOISE = 301  # the first stream of random numbers

Field = NDArray[np.float64]


def draw(name: str, size: int = 128, number: int = 0, seed: int = 0) -> NDArray[np.uint8]:
    """A texture: uint8 [size, size, 3], RGB. Raises EpisodesError for another name or size."""
    if name not in PALETTES or size < 1:
        raise EpisodesError(f"texture {name!r} of {size} pixels; there are {', '.join(PALETTES)}, from 1 on")
    colours = np.array([[int(hexed[i : i + 2], 16) for i in (0, 2, 4)] for hexed in PALETTES[name]], float)
    y, x = np.mgrid[:size, :size].astype(float)
    field = globals()[f"_{name}"](x, y, _Noise(size, number, seed))
    low = np.clip(np.floor(field), 0, len(colours) - 2)
    share = np.clip(field - low, 0, 1)[..., None]
    low = low.astype(np.int64)
    return np.floor(colours[low] * (1 - share) + colours[low + 1] * share + 0.5).astype(np.uint8)


class _Noise:
    """Random fields of one texture."""

    def __init__(self, size: int, number: int, seed: int) -> None:
        self.size, self.number, self.seed = size, number, seed

    def smooth(self, stream: int, across: int, down: int) -> Field:
        """Between 0 and 1, changing over `across` and `down` pixels: random numbers on a grid, between which
        it goes smoothly."""
        shape = (self.size // down + 2, self.size // across + 2)
        grid = uniforms(self.seed, [self.number], NOISE + stream, shape)[0]
        places = np.arange(self.size)
        rows, columns = places // down, places // across
        v, u = _ease((places % down) / down)[:, None], _ease((places % across) / across)[None]
        above = grid[rows][:, columns] * (1 - u) + grid[rows][:, columns + 1] * u
        below = grid[rows + 1][:, columns] * (1 - u) + grid[rows + 1][:, columns + 1] * u
        return above * (1 - v) + below * v

    def at(self, stream: int, rows: Field, columns: Field) -> Field:
        """A random number for each whole row and column, from 0 on."""
        shape = (int(rows.max()) + 1, int(columns.max()) + 1)
        grid = uniforms(self.seed, [self.number], NOISE + stream, shape)[0]
        return grid[rows.astype(np.int64), columns.astype(np.int64)]


def _ease(t: Field) -> Field:
    return t * t * (3 - 2 * t)


def _wave(t: Field) -> Field:
    """From 0 up to 1 and down again while t goes on by 1."""
    return 1 - np.abs(2 * (t - np.floor(t)) - 1)


# Each gives places in the palette: 0 is its first colour, 1 the second, and between them they mix.


def _stripes(x: Field, y: Field, _noise: _Noise) -> Field:
    wave = _wave((x + y) / 16) * 2
    return np.clip(4 * (wave - 1) + 1, 0, 2)


def _checks(x: Field, y: Field, noise: _Noise) -> Field:
    row, column = np.floor(y / 8), np.floor(x / 8)
    dark = (row + column) % 2
    return np.where(dark == 1, 0.0, 1 + (noise.at(0, row, column) < 0.3))


def _dots(x: Field, y: Field, noise: _Noise) -> Field:
    row = np.floor(y / 12)
    x = x + 6 * (row % 2)
    column = np.floor(x / 12)
    square = (x - 12 * column - 5.5) ** 2 + (y - 12 * row - 5.5) ** 2
    inside = np.clip((20 - square) / 8, 0, 1)
    return np.where(noise.at(0, row, column) < 0.5, inside, 2 * inside)


def _weave(x: Field, y: Field, _noise: _Noise) -> Field:
    row, column = np.floor(y / 8), np.floor(x / 8)
    over = (row + column) % 2 == 1
    across = np.where(over, (y % 8) / 8, (x % 8) / 8)  # a thread is light in its middle
    light = np.clip(2 * _wave(across), 0, 1)
    return np.where(over, light, 2 - light)


def _brick(x: Field, y: Field, noise: _Noise) -> Field:
    row = np.floor(y / 8)
    x = x + 8 * (row % 2)
    column = np.floor(x / 16)
    mortar = (y % 8 < 1.5) | (x % 16 < 1.5)
    return np.where(mortar, 0.0, 1 + noise.at(0, row, column))


def _marble(x: Field, y: Field, noise: _Noise) -> Field:
    bent = 1.5 * noise.smooth(0, 32, 32) + 0.75 * noise.smooth(1, 16, 16) + 0.4 * noise.smooth(2, 8, 8)
    vein = _wave((x + 0.5 * y) / 48 + bent)
    return 2 * vein * vein * vein


def _halftone(x: Field, y: Field, noise: _Noise) -> Field:
    u, v = (x + y) % 8 - 4, (x - y) % 8 - 4
    reach = 2 + 22 * noise.smooth(0, 24, 24)
    return np.clip((reach - u * u - v * v) / 5, 0, 1)


def _brush(x: Field, y: Field, noise: _Noise) -> Field:
    strokes = 0.6 * noise.smooth(0, 24, 3) + 0.4 * noise.smooth(1, 12, 2)
    return 3 * np.clip(2 * strokes - 0.5, 0, 1)


def _zigzag(x: Field, y: Field, _noise: _Noise) -> Field:
    wave = _wave((y + 8 * _wave(x / 16)) / 16) * 2
    return np.clip(4 * (wave - 1) + 1, 0, 2)
