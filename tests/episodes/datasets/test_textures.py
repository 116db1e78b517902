"""Textures against a slow reference, pixel by pixel."""

import hashlib
from functools import cache

import numpy as np
import pytest

from episodes.counter import uniforms
from episodes.datasets import textures
from episodes.errors import EpisodesError


def colours(name):
    return [tuple(int(hexed[i : i + 2], 16) for i in (0, 2, 4)) for hexed in textures.PALETTES[name]]


@cache
def noise(row, column, seed=0, number=0):
    """The random number of a tile."""
    return uniforms(seed, [number], textures.NOISE, (row + 1, column + 1))[0, row, column]


def mixed(name, place):
    """Between two colours of the palette."""
    palette = colours(name)
    low = min(max(int(place // 1), 0), len(palette) - 2)
    share = min(max(place - low, 0), 1)
    return [
        int(a * (1 - share) + b * share + 0.5) for a, b in zip(palette[low], palette[low + 1], strict=True)
    ]


def checks(x, y, seed):
    row, column = y // 8, x // 8
    if (row + column) % 2:
        return 0
    return 2 if noise(row, column, seed) < 0.3 else 1


def brick(x, y, seed):
    row = y // 8
    x += 8 * (row % 2)
    if y % 8 < 1.5 or x % 16 < 1.5:
        return 0
    return 1 + noise(row, x // 16, seed)


def dots(x, y, seed):
    row = y // 12
    x += 6 * (row % 2)
    column = x // 12
    square = (x - 12 * column - 5.5) ** 2 + (y - 12 * row - 5.5) ** 2
    inside = min(max((20 - square) / 8, 0), 1)
    return inside if noise(row, column, seed) < 0.5 else 2 * inside


def zigzag(x, y, _seed):
    def wave(t):
        t %= 1
        return 2 * t if t < 0.5 else 2 - 2 * t

    return min(max(4 * (2 * wave((y + 8 * wave(x / 16)) / 16) - 1) + 1, 0), 2)


@pytest.mark.parametrize("rule", [checks, brick, dots, zigzag], ids=lambda rule: rule.__name__)
def test_against_a_slow_reference(rule) -> None:
    name = rule.__name__
    drawn = textures.draw(name, 40, seed=3)
    for y in range(40):
        for x in range(40):
            assert drawn[y, x].tolist() == mixed(name, rule(x, y, 3)), (x, y)


@pytest.mark.parametrize("name", textures.PALETTES)
def test_every_texture(name) -> None:
    drawn = textures.draw(name, 96)
    assert drawn.shape == (96, 96, 3) and drawn.dtype == np.uint8
    assert np.array_equal(drawn[:32, :32], textures.draw(name, 32))  # a larger one only adds to it
    spread = drawn.reshape(-1, 3).astype(float).std(0).max()
    assert spread > 20
    near = np.abs(np.array(colours(name))[None, None] - drawn[:, :, None].astype(int)).sum(-1).min((0, 1))
    assert (near <= 12).all()  # every colour of its palette comes


def test_they_differ_by_number_and_seed() -> None:
    for name in ("checks", "dots", "brick", "marble", "halftone", "brush"):
        first = textures.draw(name, 64)
        for other in (textures.draw(name, 64, number=1), textures.draw(name, 64, seed=1)):
            assert not np.array_equal(first, other)
    assert len(textures.STYLES) == 8 and textures.NINTH not in textures.STYLES


def test_checksum() -> None:
    """Version 1 of seed 0: whoever changes what is drawn changes every record made with it."""
    drawn = b"".join(textures.draw(name).tobytes() for name in textures.PALETTES)
    assert hashlib.sha256(drawn).hexdigest()[:16] == "3b27a843ca6b9393"


def test_errors() -> None:
    with pytest.raises(EpisodesError, match=r"texture 'tartan' of 128 pixels; there are stripes, checks"):
        textures.draw("tartan")
    with pytest.raises(EpisodesError, match="of 0 pixels"):
        textures.draw("dots", 0)
