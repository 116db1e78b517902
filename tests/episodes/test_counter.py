"""The counter-based generator: fixed values, independence of shape, and an even spread."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes.counter import Stream, first_of_shuffled, integers, uniforms, words

GOLDEN_WORDS = ["0x5d4df40083c3c183", "0xe81abc020b696099", "0xa3e9f9fcff2b713b"]
MASK = (1 << 64) - 1


def naive_word(seed, episode, stream, *position):
    """splitmix64's finaliser in Python's unbounded integers, one coordinate after the other."""
    state = 0
    for coordinate in (seed, stream, episode, *position):
        z = (state + ((coordinate & MASK) + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        state = z ^ (z >> 31)
    return state


@given(
    st.integers(-(2**70), 2**70),
    st.integers(0, 2**62),
    st.integers(0, 99),
    st.integers(0, 6),
    st.integers(0, 4),
)
def test_words_are_those_of_the_naive_generator(seed, episode, stream, i, j):
    found = words(seed, [episode, 3], stream, (7, 5))
    assert found.dtype == np.uint64 and found.shape == (2, 7, 5)
    assert int(found[0, i, j]) == naive_word(seed, episode, stream, i, j)


def test_words_never_change():
    assert [hex(w) for w in words(0, [0], Stream.CLASSES, (3,))[0].tolist()] == GOLDEN_WORDS


def test_a_larger_shape_only_adds_positions():
    small, large = words(5, [1, 2], 3, (2, 4)), words(5, [1, 2, 9], 3, (6, 9))
    np.testing.assert_array_equal(small, large[:2, :2, :4])


def test_uniforms_and_integers_are_even_and_in_range():
    draws = uniforms(1, np.arange(2000), Stream.TRANSFORM, (10,))
    assert draws.min() >= 0 and draws.max() < 1
    assert np.bincount((draws * 10).astype(int).ravel(), minlength=10) == pytest.approx(2000, rel=0.1)
    faces = integers(1, np.arange(6000), Stream.ROTATION, 6)
    assert np.bincount(faces) == pytest.approx(1000, rel=0.15) and faces.max() == 5
    np.testing.assert_array_equal(integers(1, np.arange(50), 4, [1, 5], (2,))[:, 0], 0)


def test_neighbouring_seeds_episodes_and_streams_are_unrelated():
    draws = [uniforms(s, [e], t, (500,))[0] for s, e, t in [(0, 0, 4), (1, 0, 4), (0, 1, 4), (0, 0, 5)]]
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.2


@given(st.integers(0, 2**40), st.integers(1, 60), st.data())
def test_first_of_shuffled_is_the_start_of_the_sorted_order(seed, total, data):
    size = data.draw(st.integers(1, total))
    count = data.draw(st.integers(1, size))
    keys = words(seed, [0, 1], 5, (total,))
    found = first_of_shuffled(keys, count, [size, total])
    bits = max((total - 1).bit_length(), 1)
    for task, present in enumerate((size, total)):
        order = sorted(range(present), key=lambda c: (int(keys[task, c]) >> bits, c))
        assert found[task].tolist() == order[:count]


def test_first_of_shuffled_breaks_ties_by_position():
    assert first_of_shuffled(np.zeros((1, 9), np.uint64), 3).tolist() == [[0, 1, 2]]
    full = np.full((1, 9), 2**64 - 1, np.uint64)
    assert first_of_shuffled(full, 2, [2]).tolist() == [[0, 1]]


def test_every_order_is_equally_likely():
    orders = first_of_shuffled(words(3, np.arange(6000), 5, (3,)), 3)
    numbers, counts = np.unique(orders @ [9, 3, 1], return_counts=True)
    assert len(numbers) == 6 and counts == pytest.approx(1000, rel=0.15)
