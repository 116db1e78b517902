"""Tones of six made instruments, one behind the other, as a log spectrogram, and questions about them.

In the manner of CLEAR (Abdelnour, Salvi and Rouat, "CLEAR: a dataset for compositional language and
elementary acoustic reasoning", 2018, arXiv:1811.10561), with synthesised tones in place of recorded ones.
Scene i is a pure function of (seed, i), drawn without a download. A tone has an instrument, a note, an
octave, a loudness and a brightness; the questions ask for one of these, or for its place, or count. The
answers of a kind come equally often, as far as scenes allow, so that the question alone says little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from episodes.counter import uniforms
from episodes.datasets.scenes.splitting import part, require
from episodes.datasets.scenes.tones import (
    BRIGHTNESS,
    INSTRUMENTS,
    LOUDNESS,
    NOTES,
    SAMPLES,
    spectrogram,
    waves,
)
from episodes.progress import track

FEWEST, MOST, EACH = 4, 8, 8
"""Tones of a scene, and questions."""
PARTS = ("beginning", "middle", "end")
KINDS = ("exist", "count", "compare", "instrument", "note", "part", "order")
ANSWERS = ("yes", "no", *map(str, range(6)), *INSTRUMENTS, *NOTES, *PARTS)
PHRASES = (
    ("is there any", ""),
    ("how many", "are there"),
    ("are there more", ""),
    ("what instrument plays the", ""),
    ("what note does the", "play"),
    ("in what part is the", ""),
    ("what instrument plays right before the", ""),
    ("what instrument plays right after the", ""),
)
"""How a question of each kind begins and ends; the last kind has two ways."""
VOCABULARY = (
    "",
    *sorted(
        {word for parts in PHRASES for part in parts for word in part.split()}
        | {"tone", "tones", "than", *INSTRUMENTS, *NOTES, *LOUDNESS, *BRIGHTNESS}
    ),
)
"""Words by their numbers; 0 is no word."""
WORDS = 14
SPLITS = {"test": 0, "val": 1000, "train": 2000}
"""The first scene of each: 1,000 for test and for validation, and any number for training."""
CANDIDATES = 32  # questions thrown for a slot
TONES, TIMES, ASKED = 401, 402, 404  # streams of random numbers


@dataclass(frozen=True)
class Scenes:
    """N scenes with their questions, 8 each.

    sounds: uint8 [N, 64, 128], half decibels above the floor, bands from low to high. tones: int64 [N, 8, 5],
    instrument, note, octave, loudness and brightness in their order of time; -1 where there is none. spans:
    int64 [N, 8, 2], first sample and length. asked: int64 [N, 8], the questions' kinds. questions: int64
    [N, 8, 14] words into `VOCABULARY`, 0 behind the last. answers: int64 [N, 8] into `ANSWERS`.
    """

    sounds: NDArray[np.uint8]
    tones: NDArray[np.int64]
    spans: NDArray[np.int64]
    asked: NDArray[np.int64]
    questions: NDArray[np.int64]
    answers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sounds)


def draw(scenes: int, first: int = 0, seed: int = 0) -> Scenes:
    """Scenes `first` to `first + scenes - 1`.

    Raises EpisodesError for less than one scene or a negative first one.
    """
    require(scenes, first)
    starts = list(range(first, first + scenes, 50))
    chunks: Iterable[int] = track(starts, "tone scenes") if len(starts) > 10 else starts
    parts = [_draw(np.arange(start, min(start + 50, first + scenes)), seed) for start in chunks]
    names = ("sounds", "tones", "spans", "asked", "questions", "answers")
    return Scenes(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def split(name: str, scenes: int | None = None, seed: int = 0) -> Scenes:
    """A split's scenes: `test` (1,000), `val` (1,000) or `train` (16,000); or as many as given, from the
    first on, so that a smaller split is part of a larger one.

    Raises EpisodesError for another name, and more test or validation scenes than there are.
    """
    usual = {"test": 1000, "val": 1000, "train": 16_000}
    return draw(*part(name, scenes, SPLITS, usual), seed)


def _draw(numbers: NDArray[np.int64], seed: int) -> Scenes:
    draws = uniforms(seed, numbers, TONES, (MOST, 6))
    sizes = (len(INSTRUMENTS), len(NOTES), 2, len(LOUDNESS), len(BRIGHTNESS), MOST - FEWEST + 1)
    tones = np.floor(draws * sizes).astype(np.int64)
    there = np.arange(MOST) < FEWEST + tones[:, :1, 5]
    tones = np.where(there[..., None], tones[..., :5], -1)
    spans = _spans(numbers, seed, there)
    asked, said, answers = _questions(numbers, seed, tones, spans)
    sentences = np.zeros((*asked.shape, WORDS), np.int64)
    for scene, slot in np.ndindex(*asked.shape):
        spoken = sentence(int(asked[scene, slot]), *said[scene, slot].tolist()).split()
        sentences[scene, slot, : len(spoken)] = [NUMBERS[word] for word in spoken]
    return Scenes(spectrogram(waves(numbers, seed, tones, spans)), tones, spans, asked, sentences, answers)


def _spans(numbers: NDArray[np.int64], seed: int, there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First sample and length of every tone [N, 8, 2]: 0.25 to 0.45 s each, the rest is silence between."""
    draws = uniforms(seed, numbers, TIMES, (MOST + 1, 2))
    lengths = np.where(there, 4000 + np.floor(3201 * draws[:, :MOST, 0]).astype(np.int64), 0)
    shares = np.where(np.arange(MOST + 1) <= there.sum(1, keepdims=True), draws[..., 1] + 0.1, 0)
    rest = SAMPLES - lengths.sum(1)
    gaps = np.floor(shares[:, :MOST] * (rest / shares.sum(1))[:, None]).astype(np.int64)
    first = np.cumsum(gaps + lengths, 1) - lengths
    return np.where(there[..., None], np.stack((first, lengths), -1), -1)


def sentence(kind: int, instrument: int, note: int, loud: int, bright: int, *more: int) -> str:
    """A question. The numbers describe a tone, -1: is not said. more: the four of the tones compared with,
    and 1 where it is asked for the tone behind and not for the one in front."""
    tone = "tones" if kind in (1, 2) else "tone"
    begin, end = PHRASES[kind + (more[4] if kind == 6 else 0)]
    said = [begin, *_described(instrument, note, loud, bright), tone]
    if kind == 2:
        said += ["than", *_described(*more[:4]), tone]
    return " ".join([*said, end]).strip()


def _described(instrument: int, note: int, loud: int, bright: int) -> list[str]:
    pairs = ((LOUDNESS, loud), (BRIGHTNESS, bright), (INSTRUMENTS, instrument), (NOTES, note))
    return [values[number] for values, number in pairs if number >= 0]


NUMBERS = {word: number for number, word in enumerate(VOCABULARY)}


def _questions(
    numbers: NDArray[np.int64], seed: int, tones: NDArray[np.int64], spans: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Kinds [N, 8], what is said [N, 8, 9] as `sentence` takes it, and answers [N, 8].

    Every slot wants a kind, and an answer where the kind's are to be balanced. Of its candidates, which
    describe tones of the scene or nearly so, it takes the first that can be asked and has that answer, else
    the first that can be asked, else it asks whether there is such a tone.
    """
    count = len(numbers)
    draws = uniforms(seed, numbers, ASKED, (EACH, CANDIDATES, 16))  # [N, 8, K, 16]
    kind = np.floor(len(KINDS) * draws[:, :, 0, 0]).astype(np.int64)
    wish = draws[:, :, 0, 1]
    wanted = np.select(
        [(kind == 0) | (kind == 2), kind == 1, kind == 5],
        [np.floor(2 * wish), 2 + np.floor(5 * wish), ANSWERS.index("beginning") + np.floor(3 * wish)],
        -1,
    )[..., None]
    there = tones[..., 0] >= 0  # [N, 8 tones]
    kinds = kind[..., None]
    about = tones[:, :, [0, 1, 3, 4]]  # what is said of a tone
    one = _describe(draws[..., 2:9], about, there, kinds)
    other = _describe(draws[..., 9:16], about, there, kinds)
    one = np.where((kinds == 3)[..., None] & (np.arange(4) == 0), -1, one)
    one = np.where((kinds == 4)[..., None] & (np.arange(4) == 1), -1, one)
    matches = _matches(one, about, there)  # [N, 8, K, tones]
    found, than = matches.sum(-1), _matches(other, about, there).sum(-1)
    which = matches.argmax(-1)
    scene = np.arange(count)[:, None, None]
    behind = (draws[..., 9] < 0.5).astype(np.int64)
    beside = which + 2 * behind - 1
    neighbour = np.where((beside >= 0) & (beside < MOST), tones[scene, beside % MOST, 0], -1)
    middle = 2 * spans[scene, which, 0] + spans[scene, which, 1]  # in half samples
    third = 2 * SAMPLES / 3
    border = np.minimum(np.abs(middle - third), np.abs(middle - 2 * third))
    answers = np.stack(
        (
            (found == 0).astype(np.int64),
            2 + np.minimum(found, 5),
            (found <= than).astype(np.int64),
            ANSWERS.index(INSTRUMENTS[0]) + tones[scene, which, 0],
            ANSWERS.index(NOTES[0]) + tones[scene, which, 1],
            ANSWERS.index(PARTS[0]) + np.minimum(3 * middle // (2 * SAMPLES), 2),
            ANSWERS.index(INSTRUMENTS[0]) + neighbour,
        )
    )
    answer = np.take_along_axis(answers, kinds[None], 0)[0]  # [N, 8, K]
    said_something = (one >= 0).any(-1)
    single = said_something & (found == 1)
    allowed = np.select(
        [kinds == 0, kinds == 1, kinds == 2, kinds == 5, kinds == 6],
        [
            said_something,
            said_something & (found <= 5),
            said_something & (other >= 0).any(-1) & (one != other).any(-1) & (found + than > 0),
            single & (border >= 3200),  # a tenth of a second from where parts meet
            single & (neighbour >= 0),
        ],
        single,
    )
    right = allowed & ((wanted < 0) | (answer == wanted))
    chosen = np.where(right.any(-1), right.argmax(-1), allowed.argmax(-1))[..., None]  # [N, 8, 1]
    some = allowed.any(-1)
    kind = np.where(some, kind, 0)
    answer = np.where(np.expand_dims(some, -1), answer, answers[0])
    said = np.concatenate((one, other, behind[..., None]), -1)
    return (
        kind,
        np.take_along_axis(said, chosen[..., None], 2)[:, :, 0],
        np.take_along_axis(answer, chosen, 2)[..., 0],
    )


def _describe(
    draws: NDArray[np.float64], about: NDArray[np.int64], there: NDArray[np.bool_], kinds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Some of what is true of one of the scene's tones; for kinds that count, half the time with one thing
    that is not: [N, 8, K, 4]."""
    count = len(about)
    which = np.floor(draws[..., 0] * there.sum(1)[:, None, None]).astype(np.int64)
    true = about[np.arange(count)[:, None, None], which]  # [N, 8, K, 4]
    often = np.where(kinds < 3, 0.35, 0.5)[..., None] * (1, 0.4, 1, 1)  # notes, the hardest to hear, less
    named = draws[..., 3:7] < often
    sizes = np.array((len(INSTRUMENTS), len(NOTES), len(LOUDNESS), len(BRIGHTNESS)))
    place = np.floor(4 * draws[..., 1]).astype(np.int64)
    another = np.floor(draws[..., 2] * 2 * sizes[place]).astype(np.int64)
    # the upper half of the draws changes the description
    changed = (kinds < 3) & (another >= sizes[place])
    other = np.where(changed[..., None], (another - sizes[place])[..., None], true)
    said = np.where((np.arange(4) == place[..., None]) & changed[..., None], other, true)
    return np.where(named, said, -1)


def _matches(
    described: NDArray[np.int64], about: NDArray[np.int64], there: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which tones a description is true of: [N, 8, K, tones]."""
    found = np.broadcast_to(there[:, None, None], (*described.shape[:3], MOST))
    for n in range(4):
        asked = described[..., None, n]
        found = found & ((asked < 0) | (asked == about[:, None, None, :, n]))
    return found
