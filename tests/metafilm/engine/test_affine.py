"""The affine and ReLU against PyTorch's own, once and twice differentiated."""

import pytest
import torch

from metafilm.engine.affine import affine_relu


@pytest.mark.parametrize("tasks", [1, 3])
def test_affine_relu(tasks: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(tasks * 2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    gain, shift = (torch.randn(tasks, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def expected(x, gain, shift):
        y = x.unflatten(0, (tasks, -1)) * gain[:, None, :, None, None] + shift[:, None, :, None, None]
        return torch.relu(y).flatten(0, 1)

    inputs = (x, gain, shift)
    torch.testing.assert_close(affine_relu(*inputs), expected(*inputs), rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(x)
    ours = torch.autograd.grad((affine_relu(*inputs) * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected(*inputs) * weights).sum(), inputs)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(affine_relu, inputs)
    assert torch.autograd.gradgradcheck(affine_relu, inputs)
