"""Intervals against numpy and scipy."""

import math

import numpy as np
import pytest
import scipy.stats

from metafilm.evaluation import intervals


@pytest.mark.parametrize("count", [2, 3, 4, 9, 37, 600, 1000])
def test_interval_against_numpy_and_scipy(count) -> None:
    values = np.random.default_rng(0).uniform(0, 100, count)
    low, high = scipy.stats.t.interval(0.95, count - 1, values.mean(), scipy.stats.sem(values))
    assert intervals.interval(values.tolist()) == pytest.approx((high - low) / 2, rel=1e-10)


def test_no_spread_and_no_interval() -> None:
    assert intervals.interval([40.0, 40.0]) == 0
    assert math.isnan(intervals.interval([40.0])) and math.isnan(intervals.interval([]))


@pytest.mark.parametrize(
    ("successes", "total"), [(0, 1), (1, 1), (500, 500), (0, 500), (333, 500), (3, 7), (250, 500)]
)
def test_share_against_scipy(successes, total) -> None:
    low, high = scipy.stats.binomtest(successes, total).proportion_ci(0.95, "wilson")
    share = successes / total
    expected = max(high - share, share - low)
    assert intervals.share_interval(successes, total) == pytest.approx(expected, rel=1e-9)
    assert math.isnan(intervals.share_interval(0, 0))


def test_students_t_against_scipy() -> None:
    for freedom in (*range(1, 60), 199, 599, 600, 999, 4999, 30_000):
        expected = scipy.stats.t.ppf(0.975, freedom)
        assert intervals.student(freedom) == pytest.approx(expected, rel=1e-11), freedom
        angle = math.atan(0.7 / math.sqrt(freedom))
        assert intervals.within(angle, freedom) == pytest.approx(1 - 2 * scipy.stats.t.sf(0.7, freedom))
