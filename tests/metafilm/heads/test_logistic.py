"""Logistic regression on each task's support, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from metafilm import MetafilmError
from metafilm.errors import NotFinite
from metafilm.heads import LogisticHead
from metafilm.heads.logistic import newton

LABELS = torch.tensor([[0, 0, 1, 2, 2, 2, 0, 1], [2, 1, 1, 1, 0, 2, 2, 0]])


def features(count: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("c", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("size", [3, 5, 40])
def test_probabilities_are_scikit_learn_s(size, c) -> None:
    """Of features of length 1, which the head leaves as they are; more and fewer of them than images."""
    support, query = (F.normalize(features(count, size, seed), dim=-1) for count, seed in ((8, 0), (5, 1)))
    head = LogisticHead().double()
    with torch.no_grad():
        head.log_c.fill_(np.log(c))
    found = head.predict(head.fit(support, LABELS, 3), query).softmax(-1)
    for task in range(2):
        theirs = LogisticRegression(C=c, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
        theirs.fit(support[task].numpy(), LABELS[task].numpy())
        expected = torch.from_numpy(theirs.predict_proba(query[task].numpy()))
        torch.testing.assert_close(found[task].detach(), expected, rtol=1e-5, atol=1e-5)
        layer = head.plain({n: v[task : task + 1] for n, v in head.fit(support, LABELS, 3).items()})
        torch.testing.assert_close(layer(query[task]).softmax(-1), found[task], rtol=1e-9, atol=1e-9)


def test_the_size_of_the_features_does_not_matter() -> None:
    head = LogisticHead(2.0).double()
    support, query = features(8, 4), features(5, 4, 1)
    found = head.predict(head.fit(support, LABELS, 3), query)
    torch.testing.assert_close(head.predict(head.fit(50 * support, LABELS, 3), 50 * query), found)
    with torch.no_grad():
        head.log_scale.zero_()
    torch.testing.assert_close(2 * head.predict(head.fit(support, LABELS, 3), query), found)


def test_the_gradient_is_that_of_the_minimum() -> None:
    """The slope of the objective is 0 there, and derivatives go through the steps."""
    x = (features(8, 3) / 2).requires_grad_()
    c = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    weight, bias = newton(x, LABELS, 3, c)
    for task in range(2):
        w, b = (value[task].detach().requires_grad_() for value in (weight, bias))
        losses = F.cross_entropy(F.linear(x[task].detach(), w, b), LABELS[task], reduction="sum")
        objective = w.square().sum() / 2 + 1.5 * losses
        for slope in torch.autograd.grad(objective, (w, b)):
            assert slope.abs().max() < 1e-5
    assert torch.autograd.gradcheck(lambda x, c: newton(x, LABELS, 3, c), (x, c), fast_mode=True, atol=1e-4)


def test_equal_images_and_bad_scales() -> None:
    same = torch.ones(2, 8, 20, dtype=torch.float64)
    logits = LogisticHead().double()
    found = logits.predict(logits.fit(same, LABELS, 3), same).softmax(-1)
    for task in range(2):
        shares = torch.bincount(LABELS[task], minlength=3) / 8
        torch.testing.assert_close(found[task, 0], shares.double(), rtol=1e-3, atol=1e-3)
    with pytest.raises(MetafilmError, match="head scale 0 must be positive"):
        LogisticHead(0)


@pytest.mark.parametrize("c", [1.0, 30.0])
@pytest.mark.parametrize("images", [25, 120])
def test_nearly_equal_images_in_single_precision(images, c) -> None:
    """What sets them apart is less than the rounding of their products."""
    head = LogisticHead()
    with torch.no_grad():
        head.log_c.fill_(np.log(c))
    labels = torch.arange(images).remainder(2)[None]
    for seed, size in enumerate((0.0, 1e-3, 1e-3, 1e-2, 1e-2)):
        generator = torch.Generator().manual_seed(seed)
        x = 1 + torch.rand(300, generator=generator) + size * torch.randn(1, images, 300, generator=generator)
        found = head.float().predict(head.fit(x, labels, 2), x)
        expected = head.double().predict(head.fit(x.double(), labels, 2), x.double())
        torch.testing.assert_close(found.softmax(-1).double(), expected.softmax(-1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("log_c", [0.0, 4.0, 8.0])
def test_biases_cost_nothing_whatever_c_is(log_c) -> None:
    """One class has most of the images, so that the biases are large; single precision finds them as well."""
    torch.manual_seed(0)
    x = torch.randn(1, 25, 16, dtype=torch.float64)
    x *= x.square().sum(-1).mean(1).rsqrt()[:, None, None]
    labels = torch.cat((torch.zeros(21), torch.arange(1, 5))).long().unsqueeze(0)
    c = torch.tensor(log_c, dtype=torch.float64).exp()
    weight, bias = newton(x, labels, 5, c)
    single = newton(x.float(), labels, 5, c.float())
    assert (single[1] - bias).abs().max() < 1e-5 * bias.abs().max()
    logits = (x @ weight.mT + bias.unsqueeze(1)).detach().requires_grad_()
    F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()
    assert logits.grad is not None
    assert (c * logits.grad.sum(1)).abs().max() < 1e-6 * c  # of each bias, at the minimum


@pytest.mark.parametrize("c", [1.0, 100.0])
def test_many_images_that_are_told_for_sure(c) -> None:
    """Whole steps of Newton's method go astray here: the first overshoots, and of probabilities that are 0
    and 1 no curvature is left."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(120) % 12)[None]
    centres = torch.randn(12, 8, generator=generator)
    support = torch.relu(centres[labels] + 0.02 * torch.randn(1, 120, 8, generator=generator))
    head = LogisticHead()
    with torch.no_grad():
        head.log_c.fill_(np.log(c))
        found = head.predict(head.fit(support, labels, 12), support)[0].softmax(-1).double()
    scaled = (support[0] / support[0].square().sum(-1).mean().sqrt()).double().numpy()
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(scaled, labels[0].numpy())
    torch.testing.assert_close(found, torch.from_numpy(theirs.predict_proba(scaled)), rtol=0, atol=1e-5)


def test_features_that_are_not_finite() -> None:
    support = torch.full((1, 8, 20), torch.inf)
    with pytest.raises(NotFinite, match="can't be fitted to these features"):
        LogisticHead().fit(support, LABELS[:1], 3)
