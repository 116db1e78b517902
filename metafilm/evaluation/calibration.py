"""Whether probabilities mean what they say, and whether unknown classes are told from known ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metafilm.errors import MetafilmError
from metafilm.evaluation.intervals import interval

BINS = 15


class Bin(NamedTuple):
    """Predictions of about one confidence: their number, and means in [0, 1]."""

    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> list[Bin]:
    """Predictions by the probability of the class they name, in intervals ((m - 1)/M, m/M]; empty ones are
    left out.

    Args:
        probabilities: ``[n, ways]``.
        labels: int64 ``[n]``.
        bins: M.
    """
    confidence, named = probabilities.double().max(-1)
    right = (named == labels).double()
    place = (confidence * bins).ceil().clamp(1, bins).long() - 1
    counts, sums, rights = (
        torch.zeros(bins, dtype=torch.float64).index_add_(0, place, values)
        for values in (torch.ones_like(right), confidence, right)
    )
    return [
        Bin(int(n), float(total / n), float(hits / n))
        for n, total, hits in zip(counts, sums, rights, strict=True)
        if n
    ]


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error, in percent: Σ |Bₘ|/n · |acc(Bₘ) - conf(Bₘ)| over the bins of
    :func:`reliability` (Guo et al., ICML 2017, arXiv:1706.04599, eq. 3).

    Args:
        probabilities: ``[n, ways]``, n at least 1.
        labels: int64 ``[n]``.
    """
    found = reliability(probabilities, labels, bins)
    gaps = sum(part.count * abs(part.accuracy - part.confidence) for part in found)
    return 100 * gaps / sum(part.count for part in found)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T under which softmax(logits / T) makes the labels most likely (Guo et al. 2017, 4.2).

    The likelihood is concave in 1/T, so that its slope is halved upon until nothing is left.

    Args:
        logits: ``[n, ways]``.
        labels: int64 ``[n]``.

    Raises:
        MetafilmError: all labels have the largest logit, so that the likelihood rises for ever.
    """
    logits = logits.double()
    if bool((logits.argmax(-1) == labels).all()):
        raise MetafilmError(
            "every prediction of the validation tasks is right, so that no temperature is the best; take "
            "more episodes"
        )

    right = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)

    def slope(inverse: float) -> float:
        """Of the log likelihood, up to a factor."""
        expected = ((logits * inverse).softmax(-1) * logits).sum(-1)
        return float((right - expected).sum())

    low, high = -20.0, 20.0  # powers of 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(2**middle) > 0 else (low, middle)
    return 2**-low


def area(known: Sequence[Tensor], unknown: Sequence[Tensor]) -> tuple[float, float]:
    """Area under the ROC curve of telling known from unknown by a score, and half its 95 % interval.

    The share of pairs, one of each and of any episodes, in which the known one scores higher, ties counting
    half. The interval is over episodes: each one's share in the area's deviation (Obuchowski, Biometrics 53,
    1997), so that scores of one episode may depend on each other.

    Args:
        known, unknown: scores of each episode, as many in each.
    """
    inside, outside = torch.cat(list(known)).double(), torch.cat(list(unknown)).double()
    above = [_below(part.double(), outside) for part in known]
    under = [1 - _below(part.double(), inside) for part in unknown]
    whole = float(torch.cat(above).mean())
    shares = [float(a.mean() + b.mean()) - whole for a, b in zip(above, under, strict=True)]
    return whole, interval(shares)


def _below(values: Tensor, others: Tensor) -> Tensor:
    """For each value the share of the others that is less, equal ones counting half."""
    ordered = others.sort().values
    less, not_more = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (less + not_more).double() / (2 * len(ordered))
