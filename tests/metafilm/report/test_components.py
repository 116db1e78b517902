"""Principal components against the covariance's."""

import pytest
import torch

from metafilm.report.components import principal


def test_principal_components_are_those_of_the_covariance():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(40, 6, generator=generator) * torch.tensor([5.0, 2.0, 1, 0.5, 0.1, 0.1])
    places, parts = principal(values)
    spectrum = torch.linalg.eigvalsh(torch.cov(values.double().T)).flip(0)
    assert parts == pytest.approx((spectrum[:2] / spectrum.sum()).tolist())
    torch.testing.assert_close(places.var(0), spectrum[:2])
    assert torch.equal(principal(values)[0], places)


@pytest.mark.parametrize("values", [torch.zeros(3, 4), torch.ones(5, 1), torch.randn(2, 3)])
def test_few_tasks_or_none_that_differ(values):
    places, parts = principal(values)
    assert places.shape == (len(values), 2) and places.isfinite().all() and len(parts) == 2
