"""Classifiers of the plain stage: cosines and their gradients, and images made smaller."""

import copy

import pytest
import torch
from torch.nn import functional as F

from metafilm.training.plain.classifiers import LearnedCells, NormedLinear, resized


def test_cosines_times_a_learned_factor() -> None:
    torch.manual_seed(0)
    classifier, features = NormedLinear(6, 4, 10.0), torch.randn(3, 6)
    for i in range(3):
        for j in range(4):
            cosine = F.cosine_similarity(features[i], classifier.weight[j], dim=0)
            assert classifier(features)[i, j].item() == pytest.approx(10 * cosine.item(), rel=1e-5)
    assert classifier.log_scale.requires_grad


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (None, 0.03)])
def test_cosines_and_their_gradients_are_those_of_normalised_vectors(dtype, close) -> None:
    """dtype None: products in bfloat16."""
    torch.manual_seed(0)
    classifier = NormedLinear(24, 9, 7.0, torch.bfloat16 if dtype is None else None).to(
        dtype or torch.float32
    )
    with torch.no_grad():
        classifier.weight[0] *= 1e3
    reference = copy.deepcopy(classifier)
    features = torch.randn(5, 24, dtype=classifier.weight.dtype, requires_grad=True)
    same = features.detach().clone().requires_grad_()
    labels = torch.arange(5)
    directions = F.normalize(reference.weight, dim=-1)
    expected = reference.log_scale.exp() * F.linear(F.normalize(same, dim=-1), directions)
    found = classifier(features)
    torch.testing.assert_close(found, expected, rtol=close, atol=close * 7)
    for logits in (found, expected):
        F.cross_entropy(logits, labels).backward()
    for mine, other in (
        (features.grad, same.grad),
        (classifier.weight.grad, reference.weight.grad),
        (classifier.log_scale.grad, reference.log_scale.grad),
    ):
        assert mine is not None and other is not None and mine.dtype == other.dtype
        rows, others = torch.atleast_2d(mine), torch.atleast_2d(other)
        for row, right in zip(rows, others, strict=True):
            torch.testing.assert_close(row, right, rtol=close, atol=close * float(right.abs().max()))


@pytest.mark.parametrize(("channels", "cells", "known"), [(6, 9, 5), (40, 3, 2)])
def test_learned_cells_rebuild_an_images_by_ridge_regression(channels, cells, known, monkeypatch) -> None:
    """Weights W of least ‖Q − W S‖² + λ ‖W‖², one query's cell after the other; with few channels and with
    many another way is faster."""
    torch.manual_seed(0)
    classifier, taken = LearnedCells(channels, 4, 7.0, known).double(), []
    way = classifier._by_known
    monkeypatch.setattr(classifier, "_by_known", lambda *given: taken.append(1) or way(*given))
    maps = torch.randn(3, channels, cells, dtype=torch.float64)
    size = sum(float((maps[b, :, i] ** 2).sum()) for b in range(3) for i in range(cells)) / (3 * cells)
    expected, weight = torch.zeros(3, 4, dtype=torch.float64), known / channels
    for b in range(3):
        for c in range(4):
            rows = classifier.weight[c].detach()
            for i in range(cells):
                query = maps[b, :, i] / size**0.5
                w = torch.linalg.solve(rows @ rows.T + weight * torch.eye(known).double(), rows @ query)
                expected[b, c] -= 7 * ((query - w @ rows) ** 2).sum() / cells
    torch.testing.assert_close(
        classifier(maps.flatten(1)), expected, rtol=1e-6, atol=1e-6
    )  # the factor is float32
    assert bool(taken) == (channels == 40)
    classifier(maps.flatten(1)).sum().backward()
    assert classifier.weight.grad is not None and bool(classifier.weight.grad.any())


def test_a_smaller_image_averages_its_pixels() -> None:
    images = torch.rand(2, 3, 24, 36, dtype=torch.float64)
    found, expected = resized(images, 12), torch.zeros(2, 3, 12, 18, dtype=torch.float64)
    triangle = [0.25, 0.75, 0.75, 0.25]  # of width 2 around the middle of two pixels
    for i in range(12):
        for j in range(18):
            total = 0.0
            for a, down in enumerate(triangle):
                for b, right in enumerate(triangle):
                    y, x = 2 * i - 1 + a, 2 * j - 1 + b
                    if 0 <= y < 24 and 0 <= x < 36:
                        expected[:, :, i, j] += down * right * images[:, :, y, x]
                        total += down * right
            expected[:, :, i, j] /= total
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert resized(images, 24) is images and resized(images, 48).shape == (2, 3, 48, 72)
