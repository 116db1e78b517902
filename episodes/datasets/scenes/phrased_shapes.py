"""Shapes on a noisy ground, and phrases that name some of them: language-guided segmentation.

In the manner of CLEVR-Seg (INSIDE: Jacenków et al., MICCAI 2020) and of the hints of "Guide Me" (Rupprecht et
al., CVPR 2018, arXiv:1803.11544), with words in place of codes. Scene i is a pure
function of (seed, i), drawn without a download. Of its eight phrases four name attributes ("the small red
circles"), four a place too ("the circles at the top left"). Every shape lies wholly in one quarter of the
picture, so that its place is never in doubt, and touches no other.

One phrase in ten is true of nothing. The others are chosen such that guessing costs: a phrase of attributes
is true of some shapes and not of all, one of a place has shapes of its attributes elsewhere too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from episodes.counter import uniforms, words
from episodes.datasets.scenes.splitting import part, require

SIDE, MOST, EACH = 64, 7, 4
"""Pixels of a picture's side; most shapes of a scene; phrases of a kind."""
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
RGB = ((200, 40, 40), (40, 170, 40), (50, 70, 210), (210, 190, 40), (160, 50, 180), (50, 180, 190))
SHAPES = ("squares", "circles", "triangles", "crosses")
SIZES = ("small", "large")
RADII = (4, 7)
PLACES = (
    "on the left",
    "on the right",
    "at the top",
    "at the bottom",
    "at the top left",
    "at the top right",
    "at the bottom left",
    "at the bottom right",
)
QUARTERS = ((0, 2), (1, 3), (0, 1), (2, 3), (0,), (1,), (2,), (3,))
"""Of each place, the quarters of the picture: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
VOCABULARY = (
    "",
    *sorted({*" ".join(PLACES).split(), *SIZES, *COLOURS, *SHAPES, "shapes", "the"}),
)
"""Words by their numbers; 0 is no word."""
WORDS = 8
SPLITS = {"test": 0, "val": 1000, "train": 2000}
"""The first scene of each: 1,000 for test and for validation, and any number for training."""
CANDIDATES = 24  # places thrown for a shape, and phrases for a slot
FALSE = 0.1  # share of phrases that are true of nothing
KIND, PLACE, GROUND, GRAIN, SAID = 301, 302, 303, 304, 305  # streams of random numbers
_AT = np.array([[q in places for q in range(4)] for places in QUARTERS])  # [8, 4]


@dataclass(frozen=True)
class Scenes:
    """N scenes with their phrases, 8 each: 4 of attributes, then 4 that also name a place.

    images: uint8 [N, 64, 64, 3], RGB. owner: uint8 [N, 64, 64], whose pixel: 0 the ground's, i + 1 shape i's.
    shapes: int64 [N, 7, 4], size, colour, shape and quarter; -1 where there is none. said: int64 [N, 8, 4],
    size, colour, shape and place of each phrase; -1 what it does not name. meant: bool [N, 8, 7], the shapes
    that it is true of.
    """

    images: NDArray[np.uint8]
    owner: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    said: NDArray[np.int64]
    meant: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def placed(self) -> NDArray[np.bool_]:
        """Which of the phrases name a place: bool [8]."""
        return np.arange(2 * EACH) >= EACH

    def masks(self) -> NDArray[np.bool_]:
        """The pixels each phrase means: bool [N, 8, 64, 64]."""
        ground = np.zeros((*self.meant.shape[:2], 1), bool)
        by_owner = np.concatenate((ground, self.meant), 2)  # [N, 8, 1 + 7]
        scene, phrase = np.ogrid[: len(self), : 2 * EACH]
        return by_owner[scene[..., None, None], phrase[..., None, None], self.owner[:, None]]

    def words(self) -> NDArray[np.int64]:
        """The phrases in words: int64 [N, 8, 8] into `VOCABULARY`, 0 behind the last word."""
        found = np.zeros((*self.said.shape[:2], WORDS), np.int64)
        code = np.ravel_multi_index(tuple(np.moveaxis(self.said + 1, 2, 0)), (3, 7, 5, 9))
        for one in np.unique(code):
            sentence = phrase(*(int(n) - 1 for n in np.unravel_index(one, (3, 7, 5, 9))))
            row = [VOCABULARY.index(word) for word in sentence.split()]
            found[code == one, : len(row)] = row
        return found


def phrase(size: int, colour: int, shape: int, place: int) -> str:
    """A phrase by what it names; -1: it does not name that."""
    named = [values[n] for values, n in ((SIZES, size), (COLOURS, colour)) if n >= 0]
    named = ["the", *named, SHAPES[shape] if shape >= 0 else "shapes"]
    return " ".join([*named, *([PLACES[place]] if place >= 0 else [])])


def draw(scenes: int, first: int = 0, seed: int = 0) -> Scenes:
    """Scenes `first` to `first + scenes - 1`.

    Raises EpisodesError for less than one scene or a negative first one.
    """
    require(scenes, first)
    parts = [
        _draw(np.arange(start, min(start + 500, first + scenes)), seed)
        for start in range(first, first + scenes, 500)
    ]
    columns = zip(*((p.images, p.owner, p.shapes, p.said, p.meant) for p in parts), strict=True)
    return Scenes(*(np.concatenate(column) for column in columns))


def split(name: str, scenes: int | None = None, seed: int = 0) -> Scenes:
    """A split's scenes: `test` (1,000), `val` (1,000) or `train` (10,000); or as many as given, from the
    first on, so that a smaller split is part of a larger one.

    Raises EpisodesError for another name, and more test or validation scenes than there are.
    """
    usual = {"test": 1000, "val": 1000, "train": 10_000}
    return draw(*part(name, scenes, SPLITS, usual), seed)


def _draw(numbers: NDArray[np.int64], seed: int) -> Scenes:
    kinds = uniforms(
        seed, numbers, KIND, (MOST, 4)
    )  # size, colour, shape, and in the last how many there are
    shapes = np.floor(kinds * (len(SIZES), len(COLOURS), len(SHAPES), 4)).astype(np.int64)
    radius = np.array(RADII)[shapes[..., 0]]
    centres, quarter, there = _places(numbers, seed, radius)
    there &= np.arange(MOST) < 4 + shapes[:, :1, 3]  # 4 to 7 shapes
    shapes[..., 3] = quarter
    shapes[~there] = -1
    images, owner = _paint(numbers, seed, centres, radius, shapes)
    said, meant = _phrases(numbers, seed, shapes)
    return Scenes(images, owner, shapes, said, meant)


def _places(numbers: NDArray[np.int64], seed: int, radius: NDArray[np.int64]) -> tuple[NDArray, ...]:
    """Centres [N, 7, 2] (x, y), quarters [N, 7], and whether there was a free place [N, 7]: wholly in the
    quarter, and a pixel of ground at least between the squares around two shapes."""
    draws = uniforms(seed, numbers, PLACE, (MOST, CANDIDATES, 3))
    half = SIDE // 2
    quarters = np.floor(4 * draws[..., 2]).astype(np.int64)  # [N, 7, K]
    corner = half * np.stack((quarters % 2, quarters // 2), -1)
    r = radius[..., None, None]
    candidates = corner + r + np.floor(draws[..., :2] * (half - 2 * r)).astype(np.int64)  # [N, 7, K, 2]
    centres = np.full((len(numbers), MOST, 2), -SIDE)
    quarter = np.zeros((len(numbers), MOST), np.int64)
    there = np.zeros((len(numbers), MOST), bool)
    row = np.arange(len(numbers))
    for i in range(MOST):
        apart = np.abs(candidates[:, i, :, None] - centres[:, None, :i]).max(-1)  # [N, K, i]
        free = (apart >= (radius[:, i, None] + radius[:, :i])[:, None] + 2).all(-1)
        chosen = free.argmax(1)
        there[:, i] = free[row, chosen]
        centres[there[:, i], i] = candidates[row, i, chosen][there[:, i]]
        quarter[:, i] = quarters[row, i, chosen]
    return centres, quarter, there


def _masks() -> dict[tuple[int, int], NDArray[np.bool_]]:
    """By size and shape, the pixels around the centre."""
    found = {}
    for size, r in enumerate(RADII):
        y, x = np.mgrid[-r : r + 1, -r : r + 1]
        bar = r // 3
        found[size, 0] = np.ones_like(x, bool)
        found[size, 1] = x**2 + y**2 <= r * (r + 1)  # a circle through the middles of pixels
        found[size, 2] = 2 * np.abs(x) <= y + r
        found[size, 3] = (np.abs(x) <= bar) | (np.abs(y) <= bar)
    return found


MASKS = _masks()


def _paint(
    numbers: NDArray[np.int64],
    seed: int,
    centres: NDArray[np.int64],
    radius: NDArray[np.int64],
    shapes: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures and whose each pixel is. Ground: grey patches of 8 pixels; a grain of 32 steps over all."""
    patches = np.floor(64 * uniforms(seed, numbers, GROUND, (8, 8))).astype(np.int64)
    grain = words(seed, numbers, GRAIN, (SIDE, SIDE // 8)).view(np.uint8).reshape(-1, SIDE, SIDE) >> 3
    owner = np.zeros((len(numbers), SIDE, SIDE), np.uint8)
    for i in range(MOST):
        for (size, shape), mask in MASKS.items():
            scenes = np.flatnonzero((shapes[:, i, 0] == size) & (shapes[:, i, 2] == shape))
            row, y, x = np.nonzero(np.broadcast_to(mask, (len(scenes), *mask.shape)))
            scene, r = scenes[row], RADII[size]
            owner[scene, centres[scene, i, 1] + y - r, centres[scene, i, 0] + x - r] = i + 1
    ground = np.repeat(np.repeat(80 + patches.astype(np.uint8), 8, 1), 8, 2)
    palette = np.array(RGB, np.uint8)[np.maximum(shapes[..., 1], 0)]
    images = np.empty((*owner.shape, 3), np.uint8)
    images[:] = (ground + grain)[..., None]
    scene, y, x = np.nonzero(owner)
    images[scene, y, x] = palette[scene, owner[scene, y, x] - 1] + grain[scene, y, x, None]
    return images, owner


def _phrases(numbers: NDArray[np.int64], seed: int, shapes: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """What is said [N, 8, 4] and of which shapes it is true [N, 8, 7]: of every slot's candidates the first
    that is as it should be. A candidate names some attributes of one of the scene's shapes (of a false one,
    a random attribute), and in the last four slots a place."""
    count = len(numbers)
    draws = uniforms(seed, numbers, SAID, (2 * EACH, CANDIDATES, 10))  # [N, 8, K, 10]
    false = draws[:, :, 0, 0] < FALSE  # [N, 8]
    there = shapes[..., 0] >= 0
    # the chosen shape: the k-th of those that are there
    order = np.argsort(~there, axis=1, kind="stable")
    which = np.floor(draws[..., 1] * there.sum(1)[:, None, None]).astype(np.int64)
    target = np.take_along_axis(order, which.reshape(count, -1), 1).reshape(which.shape)
    attributes = shapes[np.arange(count)[:, None, None], target][..., :3]
    others = np.floor(draws[..., 2:5] * (len(SIZES), len(COLOURS), len(SHAPES))).astype(np.int64)
    changed = false[..., None, None] & (np.arange(3) == np.floor(3 * draws[..., 5:6]))
    named = draws[..., 6:9] < 0.5
    said = np.full((count, 2 * EACH, CANDIDATES, 4), -1)
    said[..., :3] = np.where(named, np.where(changed, others, attributes), -1)
    said[:, EACH:, :, 3] = np.floor(8 * draws[:, EACH:, :, 9])
    like = there[:, None, None].copy()  # shapes of these attributes: [N, 8, K, 7]
    for n in range(3):
        asked = said[..., None, n]
        like = like & ((asked < 0) | (asked == shapes[:, None, None, :, n]))
    place = said[..., 3]
    quarter = np.broadcast_to(np.maximum(shapes[:, None, None, :, 3], 0), like.shape)
    at_place = np.take_along_axis(_AT[np.maximum(place, 0)], quarter, 3)
    inside = (place < 0)[..., None] | at_place
    meant = like & inside
    some, all_ = meant.any(-1), (meant | ~there[:, None, None]).all(-1)
    elsewhere = (like & ~inside).any(-1)
    good = np.where(place >= 0, some & elsewhere, some & ~all_)
    bad = ~some & np.where(place >= 0, elsewhere, named.any(-1))
    chosen = np.where(false[..., None], bad, good).argmax(2)[..., None, None]  # [N, 8, 1, 1]
    return (
        np.take_along_axis(said, chosen, 2)[:, :, 0],
        np.take_along_axis(meant, chosen, 2)[:, :, 0],
    )
