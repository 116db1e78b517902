"""Shapes, sites and errors of the plain backbones."""

import pytest
import torch

from metafilm import MetafilmError, film
from metafilm.backbones import MLP, Conv4, ResNet12


@pytest.mark.parametrize(("shape", "expected"), [((1, 28, 28), 64), ((3, 84, 84), 1600), ((2, 16, 20), 64)])
def test_conv4(shape, expected) -> None:
    net = Conv4(shape)
    assert net.out_features == expected
    assert net(torch.rand(2, *shape)).shape == (2, expected)
    # Snell et al.'s network: 3x3 convolutions (no bias: the norm has one) and norms
    channels = shape[0]
    assert sum(p.numel() for p in net.parameters()) == 9 * 64 * (channels + 3 * 64) + 4 * 2 * 64


def test_conv4_block_is_convolution_norm_relu_pool() -> None:
    net = Conv4((1, 16, 16), 4).eval()
    x = torch.rand(2, 1, 16, 16)
    expected = x
    for block in net.blocks:
        expected = torch.max_pool2d(torch.relu(block.norm(block.conv(expected))), 2)
    torch.testing.assert_close(net(x), expected.flatten(1))  # pooling before the norm, kernels of our own


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "sites", [["blocks.0.conv", "blocks.1.norm"], ["blocks.1.conv"], ["blocks.0.norm", "blocks.0.conv"]]
)
def test_conv4_with_sites_on_its_convolutions(channels: int, sites, random_film, disturb) -> None:
    network = Conv4((channels, 16, 16), 8)
    disturb(network)
    film.insert(network, sites).eval()
    x, deviations = torch.rand(2, channels, 16, 16), random_film(network)
    with torch.no_grad():
        expected = film.fold(network, deviations)(x)
        assert not torch.allclose(expected, network(x), atol=1e-2)
        torch.testing.assert_close(film.call(network, deviations, x), expected, rtol=1e-4, atol=1e-4)
        stem = network.stem(x)
        torch.testing.assert_close(film.call(network, deviations, stem), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", ["blocks.0", "blocks.0.conv", "blocks.1.conv"])
def test_conv4_runs_hooks_in_every_pass(module: str) -> None:
    network = film.insert(Conv4((1, 16, 16), 8), "blocks.2.norm").eval()
    x, calls = torch.rand(2, 1, 16, 16), []
    network.get_submodule(module).register_forward_hook(lambda _, inputs, output: calls.append(output.shape))
    stem = network.stem(x)
    before = len(calls)
    assert torch.equal(network(stem), network(x))
    assert len(calls) == before + 2


def test_resnet12() -> None:
    net = ResNet12((3, 32, 32), 4)
    assert net.out_features == 32
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 32)
    assert [net.get_submodule(site).num_features for site in net.film_sites] == [4] * 3 + [8] * 3 + [
        16
    ] * 3 + [32] * 3


@pytest.mark.parametrize("name", ["relu", "tanh", "silu"])
def test_mlp(name: str) -> None:
    net = MLP(3, (7, 5), name)
    act = {"relu": torch.relu, "tanh": torch.tanh, "silu": torch.nn.functional.silu}[name]
    x = torch.randn(2, 3)
    expected = act(net.layers[1](act(net.layers[0](x))))
    assert net.out_features == 5 and torch.equal(net(x), expected)


@pytest.mark.parametrize("network", [Conv4, ResNet12])
def test_errors(network) -> None:
    with pytest.raises(MetafilmError, match="images of 15x28 are too small"):
        network((1, 15, 28))
    with pytest.raises(MetafilmError, match="unknown norm mode"):
        network((1, 28, 28), 4, "none")
