"""Stroke characters: reproducible, disjoint between splits, learnable; styles against a pixel-by-pixel
reference."""

import math
from dataclasses import fields
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from episodes.datasets.strokes import KNOTS, SPLITS, Jitter, draw_knots, load_strokes, nearness
from episodes.errors import EpisodesError
from episodes.transforms.pens import KNOWN, PLAIN, REACH, UNSEEN, VALIDATION, Hand, StrokeStyle

GOLDEN_COUNTS = [3, 3, 3, 3]
GOLDEN_KNOTS = [
    [0.2001235, 0.1431756],
    [0.3486666, -0.1697803],
    [-0.1089649, 0.5382126],
    [-0.1692613, -0.3469899],
]


@pytest.fixture(scope="module")
def pool():
    return load_strokes("val")


def test_a_split_has_its_classes_and_twenty_drawings_of_each(pool):
    assert pool.images.shape == (2000, 1, 28, 28) and pool.images.dtype == torch.uint8
    assert (pool.num_classes, set(pool.counts.tolist())) == (100, {20})
    assert (pool.name, pool.split, pool.class_names[0]) == ("strokes", "val", "stroke0600")


def test_splits_share_no_class():
    ranges = {split: set(range(*bounds)) for split, bounds in SPLITS.items()}
    assert {split: len(numbers) for split, numbers in ranges.items()} == {
        "train": 600,
        "val": 100,
        "test": 200,
    }
    assert sum(map(len, ranges.values())) == len(set().union(*ranges.values()))


def test_a_class_does_not_depend_on_what_is_drawn_with_it(pool):
    counts, knots = draw_knots(np.array([607]), 0, 3, Jitter())
    alone = nearness(knots[0, :, : counts[0]], 28)
    assert torch.equal(pool.class_images(7)[:3, 0], alone)
    assert not np.allclose(draw_knots(np.array([607]), 1, 3, Jitter())[1], knots)


def test_drawings_differ_and_never_leave_the_paper_empty(pool):
    flat = pool.images.flatten(1)
    assert len(flat.unique(dim=0)) == len(flat)
    assert (flat > 225).any(1).all()


def test_the_stream_of_characters_never_changes():
    counts, knots = draw_knots(np.arange(4), 0, 2, Jitter())
    assert counts.tolist() == GOLDEN_COUNTS
    np.testing.assert_allclose(knots[:, 1, 0, 0], GOLDEN_KNOTS, atol=1e-6)


def spline(knots: np.ndarray, place: float) -> np.ndarray:
    """The Catmull-Rom spline through knots [KNOTS, 2] at a place in [0, KNOTS - 1]."""
    before, after = 2 * knots[0] - knots[1], 2 * knots[-1] - knots[-2]
    line = np.concatenate([[before], knots, [after]])
    piece = min(int(place), KNOTS - 2)
    a, b, c, d = line[piece : piece + 4]
    t = place - piece
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3)


def test_nearness_is_the_distance_to_the_nearest_stroke():
    counts, knots = draw_knots(np.array([3]), 0, 1, Jitter())
    strokes = knots[0, 0, : counts[0]]
    points = np.array([spline(s, p) for s in strokes for p in np.linspace(0, KNOTS - 1, 400)])
    expected = np.zeros((28, 28))
    for y, x in product(range(28), range(28)):
        centre = ((2 * x + 1) / 28 - 1, (2 * y + 1) / 28 - 1)
        distance = min(math.dist(centre, p) for p in points)
        expected[y, x] = 255 * max(0.0, 1 - distance / REACH)
    got = nearness(strokes[None], 28)[0].numpy().astype(float)
    # The strokes are sampled every half pixel: near their middle that costs up to a quarter of a pixel.
    assert np.abs(got - expected).max() < 0.25 * 255 / (14 * REACH)
    assert np.abs(got - expected).mean() < 1


def test_characters_are_neither_trivial_nor_hopeless(pool):
    """1-nearest-neighbour over pixels, 5-way 1-shot, one pen: well above chance, well below a trained
    network."""
    images = StrokeStyle("plain")(
        (pool.images.float() / 255)[None], torch.zeros(1, StrokeStyle("plain").num_uniforms)
    )
    images = images.view(20, 5, 20, -1)  # twenty tasks of five classes
    distances = torch.cdist(images[:, :, 1:].flatten(1, 2), images[:, :, 0])
    truth = torch.arange(5).repeat_interleave(19).expand(20, -1)
    accuracy = (distances.argmin(-1) == truth).float().mean().item()
    assert 0.4 < accuracy < 0.85


@pytest.mark.parametrize(("first", "second"), [(KNOWN, UNSEEN), (KNOWN, VALIDATION), (VALIDATION, UNSEEN)])
def test_no_style_of_one_group_is_in_another(first, second):
    for one, other in product(first.values(), second.values()):
        gaps = []
        for f in fields(Hand):
            (low, high), (other_low, other_high) = getattr(one, f.name), getattr(other, f.name)
            gaps.append(high < other_low or other_high < low)
        assert any(gaps), (one, other)


def styled(image: np.ndarray, hand: Hand, u: np.ndarray) -> np.ndarray:
    """One nearness image [H, H] drawn pixel by pixel; u: the uniforms after the choice of the hand."""
    side = len(image)
    value = {}
    for f, draw in zip(fields(Hand), u, strict=False):
        low, high = getattr(hand, f.name)
        value[f.name] = low + draw * (high - low)
    grid = u[len(value) :].reshape(5, 5)
    result = np.zeros_like(image)
    for y, x in product(range(side), range(side)):
        cx, cy = (2 * x + 1) / side - 1, (2 * y + 1) / side - 1
        sx = (1 + 0.5 * abs(value["slant"])) * cx + value["slant"] * cy
        px = ((sx + 1) * side - 1) / 2
        near = 0.0
        for column in (math.floor(px), math.floor(px) + 1):
            if 0 <= column < side:
                near += (1 - abs(px - column)) * image[y, column]
        distance = abs(REACH * (1 - near) - value["hollow"] / 14)
        cover = min(1.0, max(0.0, 0.5 + (value["width"] / 14 - distance) * side / 2))
        gy, gx = 4 * y / (side - 1), 4 * x / (side - 1)
        stain = sum(
            (1 - abs(gy - j)) * (1 - abs(gx - i)) * grid[j, i]
            for j, i in product(range(5), range(5))
            if abs(gy - j) < 1 and abs(gx - i) < 1
        )
        paper = value["paper"] * stain
        written = paper + cover * (value["ink"] - paper)
        result[y, x] = 1 - written if value["negative"] else written
    return result


@pytest.mark.parametrize(
    ("name", "hands"),
    [("known", KNOWN), ("validation", VALIDATION), ("unseen", UNSEEN), ("plain", PLAIN)],
)
def test_styles_draw_each_task_in_one_style(pool, name, hands):
    style = StrokeStyle(name)
    tasks = len(hands)
    uniforms = torch.rand(
        tasks, style.num_uniforms, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    uniforms[:, 0] = (torch.arange(tasks) + 0.5) / tasks  # every hand once, in order
    images = (pool.images[:: 2000 // (2 * tasks)][: 2 * tasks].float() / 255).view(tasks, 2, 1, 28, 28)
    before = images.clone()
    got = style(images, uniforms)
    for t, hand in enumerate(hands.values()):
        for n in range(2):
            expected = styled(images[t, n, 0].double().numpy(), hand, uniforms[t, 1:].numpy())
            np.testing.assert_allclose(got[t, n, 0].numpy(), expected, atol=2e-4)
    assert torch.equal(images, before)
    alone = torch.cat(
        [style(images[t : t + 1, n : n + 1], uniforms[t : t + 1]) for t in range(tasks) for n in (0, 1)]
    )
    torch.testing.assert_close(got.view_as(alone), alone, atol=1e-5, rtol=0)
    assert got.min() >= 0 and got.max() <= 1


def test_styles_serve_other_sizes():
    counts, knots = draw_knots(np.array([5]), 0, 1, Jitter())
    image = nearness(knots[0, :, : counts[0]], 40).float() / 255
    style = StrokeStyle("known")
    uniforms = torch.full((1, style.num_uniforms), 0.4, dtype=torch.float64)
    hand = KNOWN[style.hands[int(0.4 * len(style.hands))]]
    expected = styled(image[0].double().numpy(), hand, uniforms[0, 1:].numpy())
    np.testing.assert_allclose(style(image[None, None], uniforms)[0, 0, 0].numpy(), expected, atol=2e-4)


def test_styles_serve_other_sizes_with_the_same_proportions():
    small, large = (coverage(size) for size in (28, 56))
    assert abs(small - large) < 0.02


def coverage(size: int) -> float:
    """The share of the paper that plain ink covers."""
    counts, knots = draw_knots(np.arange(4), 0, 2, Jitter())
    images = torch.cat([nearness(k[:, :c], size) for c, k in zip(counts, knots, strict=True)]).float() / 255
    style = StrokeStyle("plain")
    drawn: Tensor = style(images[None, :, None], torch.zeros(1, style.num_uniforms))
    return drawn.mean().item()


def test_errors_say_what_was_expected():
    with pytest.raises(EpisodesError, match="train, val, test"):
        load_strokes("validation")
    with pytest.raises(EpisodesError, match="at least 8"):
        load_strokes("val", image_size=4)
    with pytest.raises(EpisodesError, match="known, validation, unseen, plain"):
        StrokeStyle("new")
    with pytest.raises(EpisodesError, match=r"\[1, 2, 3, 28, 28\]"):
        StrokeStyle()(torch.rand(1, 2, 3, 28, 28), torch.zeros(1, StrokeStyle().num_uniforms))


def test_pens_draw_in_three_channels_what_they_draw_in_one() -> None:
    style = StrokeStyle("known")
    uniforms = torch.rand(3, style.num_uniforms, generator=torch.Generator().manual_seed(0)).double()
    images = (load_strokes("val").images[:6].float() / 255).view(3, 2, 1, 28, 28)
    coloured = style(images.repeat(1, 1, 3, 1, 1), uniforms)
    assert torch.equal(coloured, style(images, uniforms).repeat(1, 1, 3, 1, 1))
