"""Drawn strokes look like Omniglot's characters, wherever and however large they were drawn."""

import numpy as np
import pytest

from metafilm.app import Refused
from metafilm.app.strokes import CENTRE, LONGER, PEN, SIDE, ink, placed, read_strokes

CROSS = [[(0.5, 0.2), (0.5, 0.8)], [(0.3, 0.5), (0.7, 0.5)]]


def moved(scale: float, right: float, down: float):
    return [[((x - 0.5) * scale + right, (y - 0.5) * scale + down) for x, y in stroke] for stroke in CROSS]


def test_size_and_place_are_those_of_omniglot():
    found = ink(CROSS, SIDE) > 127
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    assert rows[-1] + 1 - rows[0] == pytest.approx(LONGER, abs=2)
    assert (rows[0] + rows[-1] + 1) / 2 == pytest.approx(CENTRE[1], abs=1)
    assert (columns[0] + columns[-1] + 1) / 2 == pytest.approx(CENTRE[0], abs=1)
    # away from where the strokes cross, the upright one is as wide as the pen
    assert found[rows[0] + 10].sum() == pytest.approx(PEN, abs=1)


@pytest.mark.parametrize(("scale", "right", "down"), [(0.4, 0.2, 0.75), (1.4, 0.5, 0.5), (1, 0.6, 0.4)])
def test_where_and_how_large_it_was_drawn_does_not_matter(scale, right, down):
    difference = np.abs(ink(moved(scale, right, down), 28).astype(int) - ink(CROSS, 28))
    assert difference.max() <= 64  # of 255: the rounding of a line's ends


def test_a_dot_stays_a_dot():
    dot = ink([[(0.2, 0.2)]], 28)
    assert int(dot.max()) > 100 and (dot > 60).sum() <= 9
    small = np.concatenate(placed([[(0.2, 0.2), (0.21, 0.2)]]))
    assert np.ptp(small[:, 0]) < LONGER / 5


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        [[]],
        [[1, 2]],
        [[[0.1]]],
        [[["a", 0]]],
        [[[float("nan"), 0]]],
        [[[0, 1e9]]],
        [[[True, 0]]],
    ],
)
def test_what_is_no_drawing_is_refused(value):
    with pytest.raises(Refused):
        read_strokes(value)


def test_a_drawing_without_end_is_refused():
    with pytest.raises(Refused, match="30000 points") as said:
        read_strokes([[[0.5, 0.5]] * 30_000])
    assert said.value.status == 413
