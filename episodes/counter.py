"""Random numbers that are a pure function of where they are used: (seed, episode, stream, position).

A counter-based generator in the manner of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014): each coordinate is mixed in with the golden-ratio increment and Stafford's
13th finaliser. There is no state, so episode 7 is the same whoever asks for it, in whatever order, in
whatever batch. numpy's own generators aren't used because their streams may change between releases; the
arithmetic here is exact in every release.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


class Stream(IntEnum):
    """Which decision of an episode a number is for. Values are part of the sampling contract: never
    renumber."""

    SHAPE = 1
    POOL = 2
    GROUP = 3
    CLASSES = 4
    IMAGES = 5
    ROTATION = 6
    TRANSFORM = 7
    AUGMENT_SUPPORT = 8
    AUGMENT_QUERY = 9
    VIEWS = 10
    FUNCTION = 11
    SUPPORT_POINTS = 12
    QUERY_POINTS = 13
    NOISE = 14
    SPLIT = 15
    DRAWING = 16
    CRITERION = 17
    ATTRIBUTES = 18
    TRAINING_CLASSES = 19


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Stafford's finaliser, in place on a fresh array."""
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= _MIX_1
    words ^= np.right_shift(words, np.uint64(27), out=shifted)
    words *= _MIX_2
    words ^= np.right_shift(words, np.uint64(31), out=shifted)
    return words


def _mixed(state: int, coordinate: int) -> int:
    """One more coordinate mixed into the state, as `_absorb` does it for arrays."""
    word = (state + (coordinate + 1) * _GOLDEN) & _MASK
    word = ((word ^ (word >> 30)) * int(_MIX_1)) & _MASK
    word = ((word ^ (word >> 27)) * int(_MIX_2)) & _MASK
    return word ^ (word >> 31)


def _absorb(state: NDArray[np.uint64], coordinate: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix one more coordinate into the state; broadcasts."""
    return _mix(state + (coordinate + np.uint64(1)) * np.uint64(_GOLDEN))


def words(seed: int, episodes: ArrayLike, stream: int, shape: tuple[int, ...] = ()) -> NDArray[np.uint64]:
    """64 random bits for each position: uint64 [T, *shape].

    seed: any integer (taken modulo 2^64). episodes: [T] integers. stream: a `Stream`, or any integer of the
    caller's own. The word at a position doesn't depend on `shape`: a larger shape only adds positions.
    """
    numbers = np.atleast_1d(np.asarray(episodes)).astype(np.int64).view(np.uint64)
    start = _mixed(_mixed(0, seed & _MASK), int(stream) & _MASK)
    state = _absorb(np.array([start], np.uint64), numbers)
    for size in shape:
        state = _absorb(state[..., None], np.arange(size, dtype=np.uint64))
    return state


def uniforms(seed: int, episodes: ArrayLike, stream: int, shape: tuple[int, ...] = ()) -> NDArray[np.float64]:
    """Numbers in [0, 1) with 53 random bits: float64 [T, *shape]. Arguments as in `words`."""
    return (words(seed, episodes, stream, shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(
    seed: int, episodes: ArrayLike, stream: int, high: ArrayLike, shape: tuple[int, ...] = ()
) -> NDArray[np.int64]:
    """Integers in [0, high): int64 [T, *shape]; `high` is positive and broadcasts. Arguments as in
    `words`."""
    return np.floor(uniforms(seed, episodes, stream, shape) * np.asarray(high)).astype(np.int64)


def first_of_shuffled(
    keys: NDArray[np.uint64], count: int, sizes: ArrayLike | None = None
) -> NDArray[np.int64]:
    """The first `count` positions of a random order of the last axis: int64 [..., count], all distinct.

    keys: uint64 [..., N] random words, one per candidate; the order is that of the keys. sizes: [...]
    (broadcasting) how many of the N candidates exist, all by default; must be at least `count`. The low bits
    of a key give way to the candidate's own number, so that there are no ties and the order is exact.
    """
    total = keys.shape[-1]
    mask = np.uint64((1 << max(total - 1, 1).bit_length()) - 1)
    position = np.arange(total, dtype=np.uint64)
    tagged = keys & ~mask
    tagged |= position
    if sizes is not None:
        # A missing candidate sorts behind every present one: its high bits are all ones, and `count <= sizes`
        # keeps it out.
        missing = position >= np.asarray(sizes, np.uint64)[..., None]
        tagged = np.where(missing, ~mask | position, tagged)
    if total > 4 * count:
        tagged.partition(count - 1, axis=-1)
        tagged = tagged[..., :count]
    return (np.sort(tagged, axis=-1)[..., :count] & mask).astype(np.int64)
