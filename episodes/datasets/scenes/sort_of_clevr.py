"""Sort-of-CLEVR: six shapes on a white ground, and questions about one of them or about two.

Santoro et al. ("A simple neural network module for relational reasoning", NeurIPS 2017, arXiv:1706.01427)
describe it; the generator that everybody uses is kimhc6028/relational-networks'. Scene i is a pure function
of (seed, i), drawn here without a download; the rules are that generator's, the scenes are not. Two things
are put right:

- There, an object's distance to itself is replaced by 999 *squared* pixels before the closest is looked for,
  so an object without a neighbour within 31.6 pixels is its own closest: 3.5 % of those questions have a
  wrong answer. ``legacy`` keeps that rule.
- Where two of different shape are equally close, or far, the question has no answer: its object is asked
  about in the third way instead. ``legacy`` takes the first in the order of colours.

It is no few-shot data set, so it has no place in the registry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from episodes.counter import uniforms
from episodes.datasets.scenes.splitting import part, require

SIDE, HALF, OBJECTS, EACH = 75, 5, 6, 10
"""Pixels of a picture's side, of half a square's side and a circle's radius; objects; questions of a kind."""
COLOURS = ("red", "green", "blue", "orange", "grey", "yellow")
RGB = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 156, 0), (128, 128, 128), (255, 255, 0))
ANSWERS = ("yes", "no", "rectangle", "circle", "0", "1", "2", "3", "4", "5")
QUESTIONS = (
    ("what shape is the {} object", "is the {} object on the left", "is the {} object on the top"),
    (
        "what shape is closest to the {} object",
        "what shape is furthest from the {} object",
        "how many others look like the {} object",
    ),
)
"""About one object, and relational; three ways to ask each."""
VOCABULARY = (
    "",
    *sorted({word for kind in QUESTIONS for q in kind for word in q.split()} - {"{}"}),
    *COLOURS,
)
"""Words by their numbers; 0 is no word."""
WORDS = max(len(question.split()) for kind in QUESTIONS for question in kind)
BITS = len(COLOURS) + 2 + 3
SPLITS = {"test": 0, "val": 2000, "train": 3000}
"""The first scene of each: 2,000 for test, 1,000 for validation, and any number for training."""
CANDIDATES = 40  # places thrown for an object; with five others there one lands amiss in four of ten cases
PLACES, SHAPES, ASKED = 101, 102, 103  # streams of random numbers


@dataclass(frozen=True)
class Scenes:
    """N scenes with their questions, 20 each: 10 about one object, then 10 relational.

    images: uint8 [N, 75, 75, 3], RGB. centres: int64 [N, 6, 2], x and y of each colour's object. shapes:
    int64 [N, 6], 0 rectangle, 1 circle. asked: int64 [N, 20, 2], colour and way to ask. answers: int64
    [N, 20], into `ANSWERS`.
    """

    images: NDArray[np.uint8]
    centres: NDArray[np.int64]
    shapes: NDArray[np.int64]
    asked: NDArray[np.int64]
    answers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def relational(self) -> NDArray[np.bool_]:
        """Of which kind the 20 questions of every scene are: bool [20]."""
        return np.arange(2 * EACH) >= EACH

    def bits(self) -> NDArray[np.uint8]:
        """Questions as the known generator codes them: uint8 [N, 20, 11], one-hot colour, kind, way."""
        found = np.zeros((*self.asked.shape[:2], BITS), np.uint8)
        colour, way = self.asked[..., 0], self.asked[..., 1]
        np.put_along_axis(found, colour[..., None], 1, -1)
        found[:, :EACH, len(COLOURS)] = 1
        found[:, EACH:, len(COLOURS) + 1] = 1
        np.put_along_axis(found, len(COLOURS) + 2 + way[..., None], 1, -1)
        return found

    def words(self) -> NDArray[np.int64]:
        """Questions in words: int64 [N, 20, 8] into `VOCABULARY`, 0 behind the last word."""
        kind = self.relational.astype(np.int64)
        return SENTENCES[kind, self.asked[..., 0], self.asked[..., 1]]


def _sentences() -> NDArray[np.int64]:
    found = np.zeros((2, len(COLOURS), 3, WORDS), np.int64)
    for index in np.ndindex(*found.shape[:3]):
        kind, colour, way = index
        sentence = QUESTIONS[kind][way].format(COLOURS[colour]).split()
        found[index][: len(sentence)] = [VOCABULARY.index(word) for word in sentence]
    return found


SENTENCES = _sentences()
"""Every question there is: int64 [2, 6, 3, 8] by kind, colour and way."""


def draw(scenes: int, first: int = 0, seed: int = 0, legacy: bool = False) -> Scenes:
    """Scenes `first` to `first + scenes - 1`.

    legacy: the known generator's rules for the closest object and for ties.

    Raises EpisodesError for less than one scene or a negative first one.
    """
    require(scenes, first)
    numbers = np.arange(first, first + scenes)
    centres = _places(numbers, seed)
    shapes = np.floor(2 * uniforms(seed, numbers, SHAPES, (OBJECTS,))).astype(np.int64)
    draws = uniforms(seed, numbers, ASKED, (2 * EACH, 2))
    asked = np.floor(draws * (len(COLOURS), 3)).astype(np.int64)
    answers = _answers(centres, shapes, asked, legacy)
    return Scenes(_paint(centres, shapes), centres, shapes, asked, answers)


def split(name: str, scenes: int | None = None, seed: int = 0, legacy: bool = False) -> Scenes:
    """A split's scenes: `test` (2,000; the known generator's 200 with `legacy`), `val` (1,000) or `train`
    (9,800); or as many as given, from the first on, so that a smaller split is part of a larger one.

    Raises EpisodesError for another name, and more test or validation scenes than there are.
    """
    usual = {"test": 200 if legacy else 2000, "val": 1000, "train": 9800}
    return draw(*part(name, scenes, SPLITS, usual), seed, legacy)


def _places(numbers: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Centres [N, 6, 2], whole pixels at least 10 apart, each the first of its candidates that is free."""
    draws = uniforms(seed, numbers, PLACES, (OBJECTS, CANDIDATES, 2))
    candidates = HALF + np.floor(draws * (SIDE - 2 * HALF)).astype(np.int64)  # [N, 6, K, 2]
    centres = np.empty((len(numbers), OBJECTS, 2), np.int64)
    for i in range(OBJECTS):
        apart = ((candidates[:, i, :, None] - centres[:, None, :i]) ** 2).sum(-1)  # [N, K, i]
        free = (apart >= (2 * HALF) ** 2).all(-1)
        chosen = free.argmax(1)  # no candidate is free once in 10^15 scenes: then the first overlaps
        centres[:, i] = candidates[np.arange(len(numbers)), i, chosen]
    return centres


def _paint(centres: NDArray[np.int64], shapes: NDArray[np.int64]) -> NDArray[np.uint8]:
    images = np.full((len(centres), SIDE, SIDE, 3), 255, np.uint8)
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    square = np.ones_like(x, bool)
    masks = np.stack((square, x**2 + y**2 <= (HALF + 0.5) ** 2))  # a circle through the middles of pixels
    for i, colour in enumerate(RGB):  # later colours lie on top
        scene, row, column = np.nonzero(masks[shapes[:, i]])
        images[scene, centres[scene, i, 1] + row - HALF, centres[scene, i, 0] + column - HALF] = colour
    return images


def _answers(
    centres: NDArray[np.int64], shapes: NDArray[np.int64], asked: NDArray[np.int64], legacy: bool
) -> NDArray[np.int64]:
    """Answers [N, 20]. Changes the way of an unanswerable question in `asked`."""
    distance = ((centres[:, :, None] - centres[:, None]) ** 2).sum(-1)  # [N, 6, 6], squared pixels
    own = np.eye(OBJECTS, dtype=bool)
    near = np.where(own, 999 if legacy else np.iinfo(np.int64).max, distance)
    by_object = np.empty((len(centres), 2, OBJECTS, 3), np.int64)  # kind, colour, way
    by_object[:, 0, :, 0] = 2 + shapes
    by_object[:, 0, :, 1:] = 2 * centres >= SIDE  # left of the middle, above it: yes, which is 0
    same = (shapes[:, :, None] == shapes[:, None]).sum(-1) - 1
    by_object[:, 1, :, 2] = 4 + same
    for way, (values, best) in enumerate(((near, near.min(-1)), (distance, distance.max(-1)))):
        found = values == best[..., None]  # [N, 6, 6]
        by_object[:, 1, :, way] = 2 + np.take_along_axis(shapes, found.argmax(-1), 1)
        if not legacy:
            circles = (found & (shapes[:, None] == 1)).any(-1)
            tied = circles & (found & (shapes[:, None] == 0)).any(-1)  # [N, 6]
            relational = asked[:, EACH:]
            unanswerable = np.take_along_axis(tied, relational[..., 0], 1) & (relational[..., 1] == way)
            relational[..., 1][unanswerable] = 2
    kind = (np.arange(2 * EACH) >= EACH).astype(np.int64)
    scene = np.arange(len(centres))[:, None]
    return by_object[scene, kind, asked[..., 0], asked[..., 1]]
