"""Shapes and phrases against a slow reference, phrase by phrase and pixel by pixel."""

import hashlib

import numpy as np
import pytest

from episodes.datasets.scenes import phrased_shapes as shapes
from episodes.errors import EpisodesError

SCENES = 120


@pytest.fixture(scope="module")
def scenes():
    return shapes.draw(SCENES, 5, seed=3)


def understood(sentence, described):
    """Whether a phrase is true of a shape, by its words."""
    said = sentence.split()
    size, colour, shape, quarter = described
    if any(word in shapes.SIZES and word != shapes.SIZES[size] for word in said):
        return False
    if any(word in shapes.COLOURS and word != shapes.COLOURS[colour] for word in said):
        return False
    if any(word in shapes.SHAPES and word != shapes.SHAPES[shape] for word in said):
        return False
    left, top = quarter % 2 == 0, quarter // 2 == 0
    places = {"left": left, "right": not left, "top": top, "bottom": not top}
    return all(places.get(word, True) for word in said)


def sentence(scenes, n, q):
    return " ".join(shapes.VOCABULARY[w] for w in scenes.words()[n, q] if w)


def test_phrases_are_true_of_what_they_mean(scenes) -> None:
    words = scenes.words()
    for n in range(SCENES):
        for q in range(8):
            said = " ".join(shapes.VOCABULARY[w] for w in words[n, q] if w)
            assert said == shapes.phrase(*scenes.said[n, q])
            assert any(word in said for word in ("on", "at")) == (q >= 4) == scenes.placed[q]
            for i, described in enumerate(scenes.shapes[n]):
                expected = described[0] >= 0 and understood(said, described)
                assert scenes.meant[n, q, i] == expected, (said, described)


def inside(described, x, y) -> bool:
    """Whether a pixel that far from its centre belongs to a shape."""
    r, shape = shapes.RADII[described[0]], shapes.SHAPES[described[2]]
    if max(abs(x), abs(y)) > r:
        return False
    return {
        "squares": True,
        "circles": x * x + y * y <= (r + 0.5) ** 2,
        "triangles": abs(x) <= (y + r) / 2,
        "crosses": min(abs(x), abs(y)) <= r // 3,
    }[shape]


def test_pictures_and_masks(scenes) -> None:
    """A shape's pixels lie as they should about one centre, wholly in its quarter, and have its colour."""
    masks = scenes.masks()
    for n in range(0, SCENES, 15):
        for i, described in enumerate(scenes.shapes[n]):
            y, x = np.nonzero(scenes.owner[n] == i + 1)
            assert (len(x) > 0) == (described[0] >= 0)
            if len(x):
                r = shapes.RADII[described[0]]
                a, b = (x.min() + x.max()) // 2, y.max() - r
                mine = {(u, v) for v in range(64) for u in range(64) if inside(described, u - a, v - b)}
                assert mine == set(zip(x.tolist(), y.tolist(), strict=True))
                assert {2 * int(v >= 32) + int(u >= 32) for u, v in mine} == {described[3]}
                grain = scenes.images[n, y, x].astype(int) - shapes.RGB[described[1]]
                assert grain.min() >= 0 and grain.max() < 32 and np.ptp(grain, 1).max() == 0
        for q in range(8):
            named = [i + 1 for i in range(7) if scenes.meant[n, q, i]]
            assert np.array_equal(masks[n, q], np.isin(scenes.owner[n], named))
        ground = scenes.images[n][scenes.owner[n] == 0]
        assert ground.min() >= 80 and ground.max() <= 80 + 63 + 31 and np.ptp(ground, 1).max() == 0


def test_shapes_do_not_touch(scenes) -> None:
    for owner in scenes.owner[::10]:
        for a, b in (
            (owner[:, 1:], owner[:, :-1]),
            (owner[1:], owner[:-1]),
            (owner[1:, 1:], owner[:-1, :-1]),
        ):
            assert not ((a != b) & (a > 0) & (b > 0)).any()


def test_guessing_costs() -> None:
    scenes = shapes.draw(1000)
    there = scenes.shapes[..., 0] >= 0
    assert set(there.sum(1)) <= {3, 4, 5, 6, 7} and 5 < there.sum(1).mean() < 5.6
    true = scenes.meant.any(2)
    assert 0.08 < 1 - true.mean() < 0.13
    others = (there[:, None] & ~scenes.meant).any(2)
    assert others[true].mean() > 0.99
    # what a phrase of a place would mean without the place
    alike = np.zeros_like(true)
    for n, q in np.ndindex(*true.shape):
        if q >= 4:
            said = scenes.said[n, q, :3]
            same = ((said < 0) | (said == scenes.shapes[n, :, :3])).all(1) & there[n]
            alike[n, q] = (same & ~scenes.meant[n, q]).any()
    assert alike[:, 4:].mean() > 0.99


def test_checksum() -> None:
    """Version 1 of seed 0: whoever changes what is drawn changes every record made with it."""
    scenes = shapes.draw(200)
    parts = (scenes.images, scenes.owner, scenes.words().astype(np.uint8), scenes.meant)
    summed = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
    assert summed.hexdigest()[:16] == "ed74170dd04e4a5d"


def test_splits_are_apart_and_scene_i_is_scene_i() -> None:
    parts = [shapes.split(name, 20) for name in ("test", "val", "train")]
    assert len(np.unique(np.concatenate([part.images.reshape(20, -1) for part in parts]), axis=0)) == 60
    some = shapes.draw(5, 2010)
    for name in ("images", "owner", "said", "meant", "shapes"):
        assert np.array_equal(getattr(some, name), getattr(parts[2], name)[10:15])
    assert not np.array_equal(some.images, shapes.draw(5, 2010, seed=1).images)
    with pytest.raises(EpisodesError, match="no split 'x'; there are test, val, train"):
        shapes.split("x")
    with pytest.raises(EpisodesError, match="1001 scenes of val, which has 1000"):
        shapes.split("val", 1001)
    with pytest.raises(EpisodesError, match="0 scenes from number 0"):
        shapes.draw(0)
