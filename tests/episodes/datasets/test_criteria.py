"""The coloured characters: reproducible, new in every split, each criterion legible by itself."""

import colorsys
import itertools
import math

import numpy as np
import pytest
import torch

import episodes
from episodes import CriterionSampler, EpisodesError
from episodes.datasets.criteria import (
    CHARACTERS,
    CRITERIA,
    DIALS,
    IMAGES,
    checksum,
    draw_properties,
    load_criteria,
    rgb,
)

# Of seed 0. The images' attributes are a contract: results committed anywhere depend on them.
GOLDEN = {
    "val": "4c910c18c6e0c7ecdfc3008e62cb9a077290ae764e3a4475482f88c820ab1c98",
    "test": "ec1dd5a2d1016f0c104130f229fcb3f41b6dae18f9b811b0405426f41e3681de",
    "train": "a80d11cf258e726a1faca91c0b02d29573e8be2e84f81b57c9c9baa52c5226e2",
}
# Means of the first val image's channels, in grey levels; other float32 arithmetic moves them by less than 1.
GOLDEN_MEANS = [219.53, 166.91, 137.98]


@pytest.fixture(scope="module")
def pools():
    return {split: load_criteria(split, images_per_character=4) for split in CHARACTERS}


@pytest.fixture(scope="module")
def val():
    return load_criteria("val")


def by_name(pool, name):
    return next(attribute for attribute in pool.attributes if attribute.name == name)


def test_a_split_has_its_images(val):
    assert val.images.shape == (100 * IMAGES["val"], 3, 32, 32) and val.images.dtype == torch.uint8
    assert (val.name, val.split, val.class_names[0]) == ("criteria", "val", "stroke0600")
    assert tuple(attribute.name for attribute in val.attributes) == CRITERIA
    assert torch.equal(by_name(val, "character").values, torch.arange(100).repeat_interleave(40))
    assert by_name(val, "character").value_names == val.class_names


def test_no_split_has_a_character_or_a_value_of_another(pools):
    for name in CRITERIA:
        values = [by_name(pool, name).value_names for pool in pools.values()]
        assert all(len(own) >= 5 for own in values), name
        assert len(set().union(*values)) == sum(map(len, values)), name
        assert all((by_name(pool, name).counts > 0).all() for pool in pools.values())


def test_what_strays_from_one_value_never_reaches_another():
    places = {split: draw_properties(np.arange(8), split, 0, 50).places for split in CHARACTERS}
    for d, dial in enumerate(DIALS):
        found = np.concatenate([drawn[..., d].ravel() for drawn in places.values()])
        strayed = np.abs(found - np.round(found))
        assert 0.3 < strayed.max() <= 1 / 3
        for split, drawn in places.items():
            near = np.round(drawn[..., d]).astype(int)
            assert set(near.ravel()) == set(dial.of_split(split))


def test_attributes_are_drawn_independently(val):
    for first in range(1, 6):
        for second in range(first):
            a, b = val.attributes[first], val.attributes[second]
            if b.name == "character":
                continue
            joint = torch.zeros(len(a.value_names), len(b.value_names))
            joint.index_put_((a.values, b.values), torch.ones(len(a.values)), accumulate=True)
            expected = joint.sum(1, keepdim=True) * joint.sum(0) / joint.sum()
            statistic = float(((joint - expected) ** 2 / expected).sum())
            freedom = (len(joint) - 1) * (joint.shape[1] - 1)
            assert statistic < freedom + 5 * math.sqrt(2 * freedom), (a.name, b.name)  # chi squared


@pytest.mark.parametrize("split", CHARACTERS)
def test_the_attributes_never_change(split, val):
    pool = val if split == "val" else load_criteria(split, 16)
    assert checksum(pool) == GOLDEN[split]


def test_the_checksum_tells_seeds_and_values_apart(pools):
    other = load_criteria("val", seed=1, images_per_character=4)
    assert len({checksum(pool) for pool in (*pools.values(), other)}) == 4
    assert checksum(load_criteria("val", 16, images_per_character=4)) == checksum(pools["val"])


def test_the_pixels_of_an_image_never_change(val):
    assert val.images[0].float().mean((1, 2)).tolist() == pytest.approx(GOLDEN_MEANS, abs=0.5)


def test_an_image_does_not_depend_on_how_many_are_drawn(val, pools):
    few = pools["val"]
    for c in (0, 7, 99):
        assert torch.equal(few.class_images(c), val.class_images(c)[:4])
    for name in CRITERIA:
        mine = by_name(val, name).values.view(100, 40)[:, :4]
        assert torch.equal(by_name(few, name).values.view(100, 4), mine)


def test_paper_and_ink_are_what_the_values_say(val):
    """Read back from the pixels: the commonest colour's hue, and that of the pixels farthest from it."""
    paper, ink = (by_name(val, name) for name in ("paper", "ink"))
    for n in range(0, len(val.images), 41):
        pixels = val.images[n].flatten(1).T.float() / 255
        colours, counts = pixels.unique(dim=0, return_counts=True)
        ground = colours[counts.argmax()]
        found = 360 * colorsys.rgb_to_hsv(*ground.tolist())[0]
        assert apart(found, degrees(paper, n)) < 6
        far = (pixels - ground).norm(dim=1)
        pen = pixels[far >= far.quantile(1 - 4 / len(far))].mean(0)
        assert apart(360 * colorsys.rgb_to_hsv(*pen.tolist())[0], degrees(ink, n)) < 12


def test_characters_lie_where_the_place_says(val):
    """The middle of the ink of all images of a place; their lines point every way."""
    place = by_name(val, "place")
    middles = torch.zeros(len(place.value_names), 2)
    for n, value in enumerate(place.values.tolist()):
        middles[value] += written(val.images[n]).nonzero().float().mean(0) - 15.5
    for value, (y, x) in enumerate(middles.tolist()):
        assert apart(math.degrees(math.atan2(y, x)), float(place.value_names[value].split()[0])) < 8


def written(image):
    """Which pixels have ink on them: bool [32, 32]."""
    pixels = image.flatten(1).T.float()
    far = (pixels - pixels.mode(0).values).norm(dim=1).view(32, 32)
    return far > far.max() / 2


def degrees(attribute, n):
    return float(attribute.value_names[attribute.values[n]].removesuffix(" degrees"))


def apart(a, b):
    return abs((a - b + 180) % 360 - 180)


def test_larger_sizes_reach_farther(val):
    size = by_name(val, "size")
    extents = [[] for _ in size.value_names]
    for n in range(0, len(val.images), 3):
        y, x = np.nonzero(written(val.images[n]).numpy())
        extents[int(size.values[n])].append(math.hypot(np.ptp(x), np.ptp(y)))
    means = [np.mean(found) for found in extents]
    assert all(b > 1.08 * a for a, b in itertools.pairwise(means)), means


def test_a_turn_turns_the_picture():
    """Characters on the same place and of the same size, told apart by their turn alone, are turned so."""
    from episodes.datasets.criteria import Properties, placed

    knots = np.random.default_rng(0).normal(size=(2, 1, 4, 2))
    knots[1] = knots[0]
    places = np.full((1, 2, 5), 6.0)
    places[0, 1, 3] += 5  # 75 degrees
    drawn = Properties(np.zeros((1, 2, 5), np.int64), places, np.zeros((1, 2, 5)))
    first, second = placed(knots, drawn)
    middle = 0.28 * np.array([0.0, 1.0])  # place 6 of 24: straight down
    angle = math.radians(75)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    np.testing.assert_allclose(second - middle, (first - middle) @ turn.T, atol=1e-12)
    radius = np.linalg.norm(first[:-2] - middle, axis=-1).max()
    assert radius == pytest.approx(0.28 * (0.58 / 0.28) ** (6 / 19))


def test_colours_are_those_of_colorsys():
    hue, saturation, value = np.random.default_rng(0).random((3, 50))
    expected = [colorsys.hsv_to_rgb(*hsv) for hsv in zip(hue, saturation, value, strict=True)]
    np.testing.assert_allclose(rgb(hue, saturation, value), expected, atol=1e-12)


def test_episodes_by_every_criterion(val):
    episode = CriterionSampler(val, 5, 5, 15).batch(range(40))
    assert set(episode.pool_ids.tolist()) == set(range(6))
    assert episode.query_images.shape == (40, 75, 3, 32, 32)


def test_by_name(val):
    assert torch.equal(episodes.load("criteria", "val").images, val.images)
    assert episodes.load("criteria", "val", image_size=16).image_shape == (3, 16, 16)
    with pytest.raises(EpisodesError, match="no schemes"):
        episodes.load("criteria", scheme="lake")


def test_errors_say_what_was_expected():
    with pytest.raises(EpisodesError, match="train, val, test"):
        load_criteria("validation")
    with pytest.raises(EpisodesError, match="at least 16"):
        load_criteria("val", 8)
    with pytest.raises(EpisodesError, match="at least 1"):
        load_criteria("val", images_per_character=0)
