"""Every filter against a naive one on a single image; one filter per task, alike for all its images."""

import colorsys
import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from episodes.datasets.strokes import load_strokes
from episodes.errors import EpisodesError
from episodes.sampler import EpisodeSampler
from episodes.transforms.filters import FILTERS, KNOWN, UNSEEN, VALIDATION
from episodes.transforms.pens import StrokeStyle
from episodes.transforms.styles import Styles, by_name, unseen_counterpart

SIDE = 16
COLOUR_ONLY = {"channel-permutation", "grey", "hue-rotation", "sepia", "tint"}


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def draws(tasks: int, seed: int = 1) -> Tensor:
    return torch.rand(tasks, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def luma(image: np.ndarray) -> np.ndarray:
    return 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def sobel(plane: np.ndarray) -> np.ndarray:
    """A quarter of the gradient's length, pixel by pixel."""
    result = np.zeros_like(plane)
    weights = ((1, 2, 1), (0, 0, 0), (-1, -2, -1))
    for y, x in product(range(SIDE), range(SIDE)):
        across = down = 0.0
        for j, i in product(range(3), range(3)):
            value = plane[min(max(y + j - 1, 0), SIDE - 1), min(max(x + i - 1, 0), SIDE - 1)]
            down, across = down + weights[j][i] * value, across + weights[i][j] * value
        result[y, x] = math.hypot(across, down) / 4
    return result


def naive(name: str, image: np.ndarray, u: float, v: float) -> np.ndarray:
    """The filter `name` on one RGB image [3, SIDE, SIDE]; u, v: its two numbers in [0, 1)."""
    if name == "identity":
        return image
    if name == "negative":
        return 1 - image
    if name == "channel-permutation":
        return image[list([(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][int(5 * u)])]
    if name == "grey":
        return np.stack([luma(image)] * 3)
    if name == "low-contrast":
        contrast, middle = 0.25 + 0.15 * u, 0.3 + 0.4 * v
        return middle + contrast * (image - middle)
    if name == "blur":
        sigma = (0.025 + 0.02 * u) * SIDE
        weight = np.array(
            [[math.exp(-((a - b) ** 2) / (2 * sigma**2)) for b in range(SIDE)] for a in range(SIDE)]
        )
        weight /= weight.sum(1, keepdims=True)
        return np.stack([weight @ plane @ weight.T for plane in image])
    if name == "pencil":
        return np.stack([np.clip(1 - (2 + 2 * u) * sobel(luma(image)), 0, 1)] * 3)
    if name == "hue-rotation":
        angle = math.radians(60 + 240 * u)
        result = np.zeros_like(image)
        to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
        for y, x in product(range(SIDE), range(SIDE)):
            lightness, i, q = to_yiq @ image[:, y, x]
            turned = (
                lightness,
                i * math.cos(angle) - q * math.sin(angle),
                i * math.sin(angle) + q * math.cos(angle),
            )
            result[:, y, x] = np.clip(np.linalg.solve(to_yiq, turned), 0, 1)
        return result
    if name == "gamma":
        return image ** (0.35 + 0.2 * v if u < 0.5 else 2 + v)
    if name == "sharpen":
        return np.clip(image + (1.5 + v) * (image - naive("blur", image, u, v)), 0, 1)
    if name == "vignette":
        place = [2 * p / (SIDE - 1) - 1 for p in range(SIDE)]
        square = np.array([[(y * y + x * x) / 2 for x in place] for y in place])
        return image * (1 - (0.75 + 0.2 * u) * square)
    if name == "halftone":
        result, levels = np.zeros_like(image), ((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5))
        for c, y, x in product(range(3), range(SIDE), range(SIDE)):
            level = levels[(y + int(4 * u)) % 4][(x + int(4 * v)) % 4]
            result[c, y, x] = float(image[c, y, x] > (level + 0.5) / 16)
        return result
    if name == "solarise":
        return np.where(image > 0.4 + 0.2 * u, 1 - image, image)
    if name == "posterise":
        levels = 2 if u < 0.5 else 3
        return np.minimum(np.floor(image * levels), levels - 1) / (levels - 1)
    if name == "emboss":
        padded = np.pad(luma(image), 1, mode="edge")
        relief = padded[2:, 2:] - padded[:-2, :-2]
        return np.stack([np.clip(0.5 + (0.5 + 0.5 * u) * relief, 0, 1)] * 3)
    if name == "sepia":
        matrix = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
        return np.clip(np.einsum("ij,jyx->iyx", matrix, image), 0, 1)
    if name == "pixelate":
        bounds = [(math.floor(c * SIDE / 14), math.ceil((c + 1) * SIDE / 14)) for c in range(14)]
        result = np.zeros_like(image)
        for y, x in product(range(SIDE), range(SIDE)):
            (top, bottom), (left, right) = (bounds[int((p + 0.5) * 14 / SIDE)] for p in (y, x))
            result[:, y, x] = image[:, top:bottom, left:right].mean((1, 2))
        return result
    if name == "edges":
        return np.stack([np.clip((1.5 + u) * sobel(plane), 0, 1) for plane in image])
    assert name == "tint"
    return image * np.array([1 if c == int(3 * u) else 0.1 + 0.3 * v for c in range(3)])[:, None, None]


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_is_the_naive_one(images, name):
    uniforms = draws(3)
    got = Styles([name])(images, uniforms)
    for t, n in product(range(3), range(2)):
        expected = naive(name, images[t, n].double().numpy(), *uniforms[t, 1:].tolist())
        np.testing.assert_allclose(got[t, n].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("name", FILTERS)
def test_grey_images_pass_every_filter(images, name):
    grey = images[:, :, :1]
    got = Styles([name])(grey, draws(3))
    assert got.shape == grey.shape and got.min() >= 0 and got.max() <= 1
    assert torch.allclose(got, grey) == (name in COLOUR_ONLY | {"identity"})


def test_every_filter_is_drawn_and_a_task_does_not_depend_on_the_others(images):
    styles = Styles(tuple(FILTERS))
    uniforms = draws(300)
    assert styles.choice(uniforms).unique().tolist() == list(range(19))
    many = images[:1].expand(300, -1, -1, -1, -1)
    before = many.clone()
    together = styles(many, uniforms)
    for t in range(0, 300, 7):
        name = styles.names[int(19 * uniforms[t, 0])]
        torch.testing.assert_close(
            together[t : t + 1], Styles([name])(many[t : t + 1], uniforms[t : t + 1].numpy())
        )
    assert torch.equal(many, before)


def test_hue_rotation_by_120_degrees_of_red_is_nearly_green_or_blue():
    red = torch.zeros(1, 1, 3, 4, 4)
    red[:, :, 0] = 0.5
    turned = Styles(["hue-rotation"])(red, torch.tensor([[0.0, 0.25, 0.0]]))[0, 0, :, 0, 0]
    hue = colorsys.rgb_to_hsv(*turned.tolist())[0]
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.06


def test_filters_for_training_for_choosing_and_for_the_test_are_disjoint():
    assert (len(KNOWN), len(VALIDATION), len(UNSEEN)) == (8, 4, 7)
    assert len(FILTERS) == 19 and "identity" in KNOWN


def test_names():
    assert by_name("none") is None
    known, unseen, strokes = (by_name(n) for n in ("known-filters", "unseen-filters", "unseen-strokes"))
    validation = by_name("validation-filters")
    assert isinstance(validation, Styles) and validation.names == tuple(VALIDATION)
    assert isinstance(known, Styles) and known.names == tuple(KNOWN)
    assert isinstance(unseen, Styles) and unseen.names == tuple(UNSEEN)
    assert isinstance(strokes, StrokeStyle) and strokes.name == "unseen"
    assert repr(by_name("validation-strokes")) == "StrokeStyle('validation')"
    single = by_name("negative")
    assert isinstance(single, Styles) and single.names == ("negative",)
    assert unseen_counterpart("known-filters") == "unseen-filters"
    assert unseen_counterpart("known-strokes") == "unseen-strokes"
    assert unseen_counterpart("none") is None and unseen_counterpart("unseen-filters") is None


def test_a_sampler_gives_every_image_of_a_task_the_same_style():
    pool = load_strokes("val")
    settings = {"ways": 3, "shots": 1, "queries": 2, "seed": 4}
    plain = EpisodeSampler(pool, **settings)
    styled = EpisodeSampler(pool, **settings, transform=by_name("negative"))
    torch.testing.assert_close(styled[5].support_images, 1 - plain[5].support_images)
    torch.testing.assert_close(styled[5].query_images, 1 - plain[5].query_images)


def test_errors_say_what_was_expected(images):
    with pytest.raises(EpisodesError, match="known-filters"):
        by_name("unknown")
    with pytest.raises(EpisodesError, match="sepia"):
        Styles(["negativ"])
    with pytest.raises(EpisodesError, match="unknown filters"):
        Styles([])
    with pytest.raises(EpisodesError, match=r"uniforms \[T, 3\].*\[3, 2\]"):
        Styles(["grey"])(images, draws(3)[:, :2])
