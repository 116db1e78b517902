"""Gradient checkpointing: refused where its gradients would be wrong, right everywhere else."""

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
    x = torch.rand(2, 1, 16, 16)
    with pytest.raises(MetafilmError, match=r"checkpointing would run a (FiLM|Norm) .* turn it off"):
        film.call(network, moved, x.clone().requires_grad_())
    network.reentrant = False  # the other kind warns
    with torch.no_grad():
        film.call(network, moved, x)  # without gradients nothing runs twice


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


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_of_more_than_the_call_is_right(reentrant: bool) -> None:
    """A plain pass before it, what reads a site first, and a learner with its stem and steps."""
    network = NETWORKS["fused"]()
    x = torch.rand(2, 1, 16, 16).requires_grad_()
    values = [value.requires_grad_() for value in film.zeros(network, 1).values()]

    def both(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        plain = network(x)
        moved = [value + plain.mean() for value in values]
        return film.call(network, dict(zip(film.zeros(network, 1), moved, strict=True)), x) + plain

    exact = torch.autograd.grad(both(x, *values).square().sum(), values)
    out = checkpoint(both, x, *values, use_reentrant=reentrant)
    out.square().sum().backward()
    torch.testing.assert_close([value.grad for value in values], list(exact))


def test_a_learner_and_a_conditioned_network_in_a_checkpoint(make_learner, make_episode) -> None:
    learner = make_learner(film={"sites": "last"}, inner={"steps": 2})
    episode = make_episode()
    exact = learner(episode).predictions[-1].square().sum()
    parameters = [p for p in learner.parameters() if p.requires_grad]
    expected = torch.autograd.grad(exact, parameters, allow_unused=True)
    out = checkpoint(lambda: learner(episode).predictions[-1], use_reentrant=False)
    assert isinstance(out, torch.Tensor)
    found = torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)
    torch.testing.assert_close(found, expected)


def test_a_plain_checkpoint_beside_an_earlier_call_is_right() -> None:
    network = NETWORKS["hooked"]()
    x = torch.rand(2, 1, 16, 16).requires_grad_()
    kept = film.call(network, film.zeros(network, 1), x)
    own = list(film.parameters(network).values())
    exact = torch.autograd.grad(network(x).square().sum(), own)
    for reentrant in (False, True):
        out = checkpoint(network, x, use_reentrant=reentrant)
        assert isinstance(out, torch.Tensor)
        for value in own:
            value.grad = None
        out.square().sum().backward()
        torch.testing.assert_close([value.grad for value in own], list(exact))
    kept.sum().backward()


def test_other_hooks_on_saved_tensors_go_on() -> None:
    network = NETWORKS["hooked"]()
    x = torch.rand(2, 1, 16, 16)
    with torch.autograd.graph.save_on_cpu():
        film.call(network, film.zeros(network, 1), x).sum().backward()

    class Offloaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autograd.graph.save_on_cpu():
                return self.network(x)

    within = Offloaded()
    moved = {name: value.requires_grad_() for name, value in film.zeros(within, 1).items()}
    film.call(within, moved, x).sum().backward()
    assert all(value.grad is not None for value in moved.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_own_deviations_are_right(name, disturb) -> None:
    network = Checkpointed(NETWORKS[name]())
    own = list(film.parameters(network).values())
    for value in own:
        value.requires_grad_().data.add_(0.1)
    x = torch.rand(2, 1, 16, 16)
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
