"""Gradient checkpointing: refused where its gradients would be wrong, right everywhere else."""

import gc

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from metafilm import MetafilmError, film, norms
from metafilm.backbones import Conv4
from metafilm.backbones.frozen import quicken


class Checkpointed(nn.Module):
    def __init__(self, network: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.network, self.reentrant = network, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = checkpoint(self.network, x, use_reentrant=self.reentrant)
        assert isinstance(found, torch.Tensor)
        return found


def small(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return film.insert(nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 3))).eval()


def lite() -> nn.Module:
    pytest.importorskip("timm")
    from timm.models._efficientnet_blocks import InvertedResidual

    block = InvertedResidual(8, 8, exp_ratio=2, act_layer=nn.ReLU6)
    return film.insert(nn.Sequential(nn.Conv2d(1, 8, 3), quicken(block))).requires_grad_(False).eval()


NETWORKS = {
    "hooked": lambda: small(nn.BatchNorm2d(4)),
    "taken into the affine": lambda: small(norms.Norm(4)),
    "fused": lambda: film.insert(Conv4((1, 16, 16), 4)).eval(),
    "without a film of its own": lambda: film.insert(Conv4((1, 16, 16), 4), ["features"]).eval(),
    "frozen": lite,
}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_given_deviations_are_refused(name, reentrant: bool) -> None:
    network = Checkpointed(NETWORKS[name](), reentrant)
    moved = {name: value.requires_grad_() for name, value in film.zeros(network, 1).items()}
    out = film.call(network, moved, torch.rand(2, 1, 16, 16).requires_grad_())
    with pytest.raises(MetafilmError, match=r"checkpointing runs a (FiLM|Norm) .* turn it off"):
        out.sum().backward()


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_wrapper_that_is_gone_hides_nothing(tasks: int) -> None:
    network = NETWORKS["hooked"]()
    moved = film.zeros(Checkpointed(network), tasks)
    out = film.call(Checkpointed(network), moved, torch.rand(4, 1, 16, 16))
    gc.collect()
    with pytest.raises(MetafilmError, match="checkpointing runs a FiLM"):
        out.sum().backward()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_of_the_whole_call_is_right(name) -> None:
    network = NETWORKS[name]()
    names = list(film.zeros(network, 2))
    x = torch.rand(4, 1, 16, 16).requires_grad_()
    values = [value.requires_grad_() for value in film.zeros(network, 2).values()]

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return film.call(network, dict(zip(names, values, strict=True)), x)

    exact = torch.autograd.grad(run(x, *values).square().sum(), values)
    out = checkpoint(run, x, *values, use_reentrant=False)
    found = torch.autograd.grad(out.square().sum(), values)
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_own_deviations_are_right(name, disturb) -> None:
    network = Checkpointed(NETWORKS[name]())
    own = list(film.parameters(network).values())
    for value in own:
        value.requires_grad_().data.add_(0.1)
    x = torch.rand(2, 1, 16, 16)
    # a call without a gradient, and one whose graph is gone, are no reason to refuse anything
    with torch.no_grad():
        film.call(network, film.zeros(network, 1), x)
    film.call(network, film.zeros(network, 1), x.clone().requires_grad_())
    gc.collect()
    exact = torch.autograd.grad(network.network(x).square().sum(), own)
    found = torch.autograd.grad(network(x).square().sum(), own)
    torch.testing.assert_close(found, exact)


def test_other_networks_and_passes_that_track_nothing_go_on() -> None:
    called, other = NETWORKS["hooked"](), Checkpointed(NETWORKS["hooked"]())
    x = torch.rand(2, 1, 16, 16)
    out = film.call(called, film.zeros(called, 1), x)
    seen = []
    out.register_hook(lambda _: seen.append(called(x)))
    (out.sum() + other(x).sum()).backward()
    assert len(seen) == 1
