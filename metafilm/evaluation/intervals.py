"""Confidence intervals of means over episodes, and of shares."""

import math
from collections.abc import Sequence
from functools import cache

COVERED = 0.95
Z = 1.959963984540054
"""The normal distribution lies within ± Z with that probability."""
NORMAL = 1.95  # a little less than the normal distribution's 1.96, and so than every Student's t


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean: Student's t with n - 1 degrees of freedom
    times the standard error (ddof 1). NaN for fewer than two values."""
    count = len(values)
    if count < 2:
        return math.nan
    mean = sum(values) / count
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return student(count - 1) * error


def share_interval(successes: int, total: int) -> float:
    """How far the 95 % confidence interval of a share reaches from it, on its longer side, as a share.

    Wilson's interval (Journal of the American Statistical Association 22, 1927): 0.008 for 500 successes in
    500 tries, where that of a mean is 0. NaN without a try.
    """
    if not total:
        return math.nan
    square = Z**2 / total
    share = successes / total
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return half + abs(middle - share)


@cache
def student(freedom: int) -> float:
    """t such that Student's T with so many degrees of freedom, from 1, lies within ± t in 95 % of cases."""
    # In the angle atan(t / √ν) the probability is increasing and concave, so that from a start below the
    # solution Newton's steps come up to it and never past it.
    log_density = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) + math.log(2 / math.sqrt(math.pi))
    angle = math.atan(NORMAL / math.sqrt(freedom))
    for _ in range(50):
        density = math.exp(log_density + (freedom - 1) * math.log(math.cos(angle)))
        step = (COVERED - within(angle, freedom)) / density
        angle += step
        if abs(step) < 1e-12 * angle:
            break
    return math.sqrt(freedom) * math.tan(angle)


def within(angle: float, freedom: int) -> float:
    """The probability that |T| < √ν · tan(angle): Abramowitz & Stegun 26.7.3 and 26.7.4, finite sums."""
    sine, square = math.sin(angle), math.cos(angle) ** 2
    even = freedom % 2 == 0
    term = 1.0 if even else math.cos(angle)
    terms = freedom // 2
    total = 0.0
    for j in range(1, terms + 1):
        total += term
        term *= square * ((2 * j - 1) / (2 * j) if even else (2 * j) / (2 * j + 1))
    return sine * total if even else (angle + sine * total) * 2 / math.pi
