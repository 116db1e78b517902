"""Convolutions against PyTorch's own, differentiated once, twice and three times."""

import pytest
import torch
from torch.nn import functional as F

from metafilm.engine import convolution

GEOMETRIES = {
    "3x3": ((1, 1), (1, 1), (1, 1), 1, (5, 3, 3, 3)),
    "1x1": ((1, 1), (0, 0), (1, 1), 1, (4, 3, 1, 1)),
    "strided": ((2, 1), (1, 0), (1, 2), 1, (5, 3, 3, 2)),
    "grouped": ((1, 1), (1, 1), (1, 1), 3, (6, 1, 3, 3)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_conv2d_is_right_to_the_second_order(name: str) -> None:
    *geometry, shape = GEOMETRIES[name]
    geometry = tuple(geometry)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def convolve(x, weight):
        return convolution.conv2d(x, weight, geometry)

    assert torch.equal(convolve(x, weight), F.conv2d(x, weight, None, *geometry))
    assert torch.autograd.gradcheck(convolve, (x, weight))
    assert torch.autograd.gradgradcheck(convolve, (x, weight))


def test_conv2d_is_right_to_the_third_order() -> None:
    """The three maps are closed under differentiation: nothing stops at two."""
    torch.manual_seed(0)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def third(convolve):
        value = torch.tanh(convolve(x, weight)).sum()
        for _ in range(3):
            gradients = torch.autograd.grad(value, (x, weight), create_graph=True)
            value = sum((gradient**2).sum() for gradient in gradients)
        return value

    ours = third(lambda x, w: convolution.conv2d(x, w, ((1, 1), (1, 1), (1, 1), 1)))
    torch.testing.assert_close(ours, third(lambda x, w: F.conv2d(x, w, padding=1)), rtol=1e-10, atol=0)


def test_an_inner_gradient_costs_no_weight_gradient(monkeypatch) -> None:
    """`autograd.grad` for one map runs no kernel for the weights, `backward` runs each weight's."""
    calls = []
    original = convolution._backward

    def counting(grad, x, weight, geometry, which):
        calls.append(which)
        return original(grad, x, weight, geometry, which)

    monkeypatch.setattr(convolution, "_backward", counting)
    layers = [convolution.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2)]
    x, delta = torch.randn(2, 3, 5, 5), torch.zeros(3, requires_grad=True)
    y = layers[1](layers[0](x) * (1 + delta[:, None, None]))
    (gradient,) = torch.autograd.grad(y.square().sum(), [delta], create_graph=True)
    assert calls == [0]
    calls.clear()
    gradient.square().sum().backward()
    assert calls.count(1) >= 2 and all(layer.weight.grad is not None for layer in layers)
