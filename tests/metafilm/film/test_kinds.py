"""Layers of other libraries as FiLM sites: what is a norm, what can be folded, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metafilm import MetafilmError, film

timm = pytest.importorskip("timm")
norms = pytest.importorskip("timm.layers")


class Tokens(nn.Module):
    """A norm over the last dimension behind a linear layer, on sequences ``[B, N, C]``."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.linear, self.norm, self.last = nn.Linear(4, 8), norm, nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.linear(x))).mean(1)


class Maps(nn.Module):
    """A norm of the channels of ``[B, C, H, W]``."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 1), norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


class LlamaRMSNorm(nn.Module):
    """As transformers writes it: no subclass of anything, no number of features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(size) + 0.5), 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


TOKENS = {
    "layer norm": lambda: nn.LayerNorm(8),
    "without affine": lambda: nn.LayerNorm(8, elementwise_affine=False),
    "without bias": lambda: nn.LayerNorm(8, bias=False),
    "RMSNorm": lambda: nn.RMSNorm(8),
    "RMSNorm without affine": lambda: nn.RMSNorm(8, elementwise_affine=False),
    "timm's RmsNorm": lambda: norms.RmsNorm(8),
    "timm's SimpleNorm": lambda: norms.SimpleNorm(8),
    "transformers'": lambda: LlamaRMSNorm(8),
    "linear": lambda: nn.Linear(8, 8),
}
MAPS = {
    "batch norm": lambda: nn.BatchNorm2d(8),
    "without affine": lambda: nn.BatchNorm2d(8, affine=False),
    "group norm": lambda: nn.GroupNorm(2, 8),
    "group norm without affine": lambda: nn.GroupNorm(2, 8, affine=False),
    "instance norm": lambda: nn.InstanceNorm2d(8),
    "frozen batch norm": lambda: norms.FrozenBatchNormAct2d(8),
    "LayerNorm2dFp32": lambda: norms.LayerNorm2dFp32(8),
    "RmsNorm2d": lambda: norms.RmsNorm2d(8),
    "RmsNormAct2d": lambda: norms.RmsNormAct2d(8, act_layer=nn.GELU),
    "SimpleNorm2d": lambda: norms.SimpleNorm2d(8),
    "EvoNorm2dS0": lambda: norms.EvoNorm2dS0(8, groups=2),
    "FilterResponseNormAct2d": lambda: norms.FilterResponseNormAct2d(8),
    "GroupNormAct": lambda: norms.GroupNormAct(8, num_groups=2),
    "scaled convolution": lambda: norms.ScaledStdConv2d(8, 8, 3, padding=1),
    "convolution": lambda: nn.Conv2d(8, 8, 3, padding=1, bias=False),
}
CASES = {f"tokens: {name}": (Tokens, make, (4, 5, 4)) for name, make in TOKENS.items()}
CASES |= {f"maps: {name}": (Maps, make, (4, 3, 6, 6)) for name, make in MAPS.items()}


@pytest.mark.parametrize("case", CASES)
def test_identity_tasks_fold_and_removal(case, random_film) -> None:
    around, make, shape = CASES[case]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = around(make()).eval()
    with torch.no_grad():
        for value in plain.norm.state_dict().values():
            if value.is_floating_point():
                value.add_(0.2 * torch.rand(value.shape, generator=generator))
    x = torch.rand(shape, generator=generator)
    network = film.insert(copy.deepcopy(plain), ["norm"])
    if "convolution" not in case and "linear" not in case:
        assert film.sites(film.insert(copy.deepcopy(plain))) == film.sites(network) == {"norm": 8}
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))
        deviations = random_film(network, tasks=2)
        both = film.call(network, deviations, x)
        by_row = film.call(network, deviations, x, rows=torch.tensor([0, 0, 1, 1]))
        torch.testing.assert_close(by_row, both)
        for task in range(2):
            own = {name: value[task] for name, value in deviations.items()}
            mine = x[2 * task : 2 * task + 2]
            alone = film.call(network, own, mine)
            torch.testing.assert_close(both[2 * task : 2 * task + 2], alone)
            folded = film.fold(network, own)
            torch.testing.assert_close(folded(mine), alone)
            torch.testing.assert_close(copy.deepcopy(folded)(mine), alone)
            assert not film.sites(folded) and not torch.allclose(alone, plain(mine), atol=1e-3)
            assert set(folded.state_dict()) >= set(plain.state_dict())
        film.remove(network)
    assert list(network.state_dict()) == list(plain.state_dict())


def test_a_bias_is_given_to_a_norm_that_has_none_only_where_it_is_needed() -> None:
    network = film.insert(nn.Sequential(nn.Linear(4, 6), norms.RmsNorm(6)))
    gains = {"1.film.delta_gamma": torch.linspace(-0.5, 0.5, 6)}
    assert "1.bias" not in film.fold(network, gains).state_dict()
    shifted = film.fold(network, {**gains, "1.film.delta_beta": torch.ones(6)})
    assert torch.equal(shifted.state_dict()["1.bias"], torch.ones(6))
    x = torch.rand(3, 4)
    # the bias is a weight like any other: it is saved, loaded and used
    state = shifted.state_dict()
    state["1.bias"] = torch.full((6,), 3.0)
    before = shifted(x)
    shifted.load_state_dict(state)
    torch.testing.assert_close(shifted(x), before + 2)


def test_a_norm_that_scales_its_input_alone_is_no_site() -> None:
    class GlobalResponseNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

    with pytest.raises(MetafilmError, match="neither norms nor convolutions"):
        film.insert(nn.Sequential(GlobalResponseNorm()))


class Standardised(nn.Conv2d):
    """Its weights' scale has no effect."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.conv2d(input, self.weight / self.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1), self.bias)


class Squared(nn.LayerNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).square()


@pytest.mark.parametrize(("layer", "x"), [(Standardised(3, 4, 1), (2, 3, 2, 2)), (Squared(3), (2, 5, 3))])
def test_a_layer_that_means_something_else_by_its_weights_is_refused(layer, x, random_film) -> None:
    network = film.insert(nn.Sequential(layer), ["0"])
    deviations = random_film(network)
    film.call(network, deviations, torch.rand(x))  # it runs unfolded
    with pytest.raises(MetafilmError, match=rf"into '0': a {type(layer).__name__} does something else"):
        film.fold(network, deviations)


def test_a_parametrised_weight_is_refused() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1))
    network = film.insert(nn.Sequential(layer), ["0"])
    with pytest.raises(MetafilmError, match=r"'0': its weight is computed from other tensors .*remove_param"):
        film.fold(network)


def test_nobodys_hooks_run_while_a_layer_is_tried(random_film) -> None:
    network = film.insert(nn.Sequential(nn.Conv2d(3, 4, 1), norms.BatchNormAct2d(4)))
    seen: list[torch.Tensor] = []
    network[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    before = copy.deepcopy(network.state_dict())
    folded = film.fold(network.train(), random_film(network))
    assert not seen and folded[1].training
    assert torch.equal(folded.state_dict()["1.running_mean"], before["1.running_mean"])
