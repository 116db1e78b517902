"""The kernels against PyTorch's own, once and twice differentiated."""

import pytest
import torch
from torch.nn import functional as F

from metafilm.engine import kernels


def naive(y, tasks, rows):
    part = y.unflatten(0, (tasks, -1))[:, :rows]
    var, mean = torch.var_mean(part, dim=(1, 3, 4), correction=0)
    return F.max_pool2d(y, 2), mean, var


@pytest.mark.parametrize("tasks, rows", [(1, None), (3, None), (3, 2)])
@pytest.mark.parametrize("side", [4, 5])
def test_pool_and_moments(tasks: int, rows: int | None, side: int) -> None:
    torch.manual_seed(0)
    y = torch.randn(6 if tasks == 3 else 3, 4, side, side, dtype=torch.float64)
    y = y[: 3 * tasks] if rows is None else torch.randn(9, 4, side, side, dtype=torch.float64)
    y = y[: len(y) // tasks * tasks].requires_grad_()
    for ours, expected in zip(kernels.pool_and_moments(y, tasks, rows), naive(y, tasks, rows), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)

    def both(y):
        return kernels.pool_and_moments(y, tasks, rows)

    assert torch.autograd.gradcheck(both, (y,))
    assert torch.autograd.gradgradcheck(both, (y,))
    assert torch.autograd.gradcheck(lambda y: kernels.moments(y, tasks, rows), (y,))
    assert torch.autograd.gradgradcheck(lambda y: kernels.moments(y, tasks, rows), (y,))


def test_moments_of_faint_pictures_behind_a_padded_convolution() -> None:
    """Whose corners lie far from everything else: what is subtracted against cancellation is no corner."""
    torch.manual_seed(0)
    x = 0.8 + 0.004 * torch.rand(4, 3, 84, 84)
    y = F.conv2d(x, torch.randn(8, 3, 3, 3), padding=1)[..., 1:-1, 1:-1]
    corner = F.conv2d(x, torch.randn(8, 3, 3, 3), padding=1)[..., :1, :1]
    y = y.contiguous(memory_format=torch.channels_last).clone()
    y[..., :1, :1] = corner
    _, _, var = kernels.pool_and_moments(y, 1)
    torch.testing.assert_close(var.double(), naive(y.double(), 1, None)[2], rtol=3e-6, atol=0)


def test_moments_of_bfloat16_maps_are_not_rounded_to_it() -> None:
    torch.manual_seed(0)
    y = (torch.randn(6, 8, 14, 14) * 3 + 1).to(torch.bfloat16)
    _, mean, var = kernels.pool_and_moments(y, 2)
    _, expected_mean, expected_var = naive(y.double(), 2, None)
    assert mean.dtype == var.dtype == torch.float32
    torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(var.double(), expected_var, rtol=1e-5, atol=1e-6)
