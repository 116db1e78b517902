"""Calibration error, temperature and ROC area against slow versions that follow the definitions."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from metafilm import MetafilmError
from metafilm.evaluation import area, calibration_error, fit_temperature, reliability


def drawn(count: int = 500, ways: int = 4, seed: int = 0, scale: float = 3.0):
    """Logits that are too sharp for how often they are right."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, ways, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return scale * logits, labels


def slow_error(probabilities, labels, bins) -> float:
    """Guo et al. 2017, equation 3, prediction by prediction."""
    found = 0.0
    for m in range(1, bins + 1):
        members = []
        for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
            confidence = max(row)
            if (m - 1) / bins < confidence <= m / bins:
                members.append((confidence, row.index(confidence) == label))
        if members:
            accuracy = sum(right for _, right in members) / len(members)
            confidence = sum(sure for sure, _ in members) / len(members)
            found += len(members) / len(labels) * abs(accuracy - confidence)
    return 100 * found


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_as_defined(bins) -> None:
    logits, labels = drawn()
    probabilities = logits.softmax(-1)
    assert calibration_error(probabilities, labels, bins) == pytest.approx(
        slow_error(probabilities, labels, bins), abs=1e-9
    )
    parts = reliability(probabilities, labels, bins)
    assert sum(part.count for part in parts) == 500 and all(0 <= part.accuracy <= 1 for part in parts)


def test_ends_of_bins_and_certainty() -> None:
    """A confidence on an edge belongs to the bin below it, 1 to the last."""
    probabilities = torch.tensor([[0.6, 0.4], [0.8, 0.2], [1.0, 0.0]], dtype=torch.float64)
    parts = reliability(probabilities, torch.tensor([0, 0, 1]), bins=5)
    assert [(part.count, part.accuracy) for part in parts] == [(1, 1.0), (1, 1.0), (1, 0.0)]
    assert calibration_error(torch.eye(3), torch.arange(3)) == 0
    assert calibration_error(torch.eye(3), (torch.arange(3) + 1) % 3) == 100


def test_temperature_is_the_likeliest_and_mends_the_calibration() -> None:
    logits, labels = drawn(4000)
    found = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / temperature, labels, reduction="sum"))

    grid = [0.5 + 0.01 * step for step in range(600)]
    assert found == pytest.approx(min(grid, key=loss), abs=0.01)
    assert loss(found) <= min(map(loss, grid)) and found == pytest.approx(3, rel=0.1)
    before, after = (calibration_error((logits / t).softmax(-1), labels) for t in (1, found))
    assert before > 15 and after < 3
    # halving the logits halves the temperature
    assert fit_temperature(logits / 2, labels) == pytest.approx(fit_temperature(logits, labels) / 2)


def test_no_temperature_where_all_is_right() -> None:
    with pytest.raises(MetafilmError, match="every prediction of the validation tasks is right"):
        fit_temperature(torch.eye(3), torch.arange(3))


def test_area_is_the_share_of_pairs_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    known = [torch.randint(3, 9, (6,), generator=generator).float() for _ in range(5)]
    unknown = [torch.randint(0, 6, (6,), generator=generator).float() for _ in range(5)]
    inside, outside = torch.cat(known).tolist(), torch.cat(unknown).tolist()
    slow = sum((a > b) + (a == b) / 2 for a in inside for b in outside) / (len(inside) * len(outside))
    found, half = area(known, unknown)
    assert (
        found == pytest.approx(slow) == pytest.approx(roc_auc_score([1] * 30 + [0] * 30, [*inside, *outside]))
    )
    assert 0 < half < 0.5
    assert area([torch.ones(2), torch.ones(2)], [torch.zeros(2), torch.zeros(2)]) == (1.0, 0.0)


def test_the_interval_of_the_area_covers() -> None:
    """Over repeated sets of episodes whose scores hang together, 95 % of intervals hold the true area."""
    generator = torch.Generator().manual_seed(0)
    truth = 0.5 * (1 + math.erf(1 / 2 / math.sqrt(1 + 0.5**2)))  # difference of means 1, deviation sqrt 2.5

    def scores(shift: float) -> list[torch.Tensor]:
        own = 0.5 * torch.randn(30, 1, generator=generator)
        return list(shift + own + torch.randn(30, 10, generator=generator))

    held = 0
    for _ in range(300):
        found, half = area(scores(1), scores(0))
        held += abs(found - truth) < half
    assert 0.9 < held / 300 < 0.99
