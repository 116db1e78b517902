"""The FiLM layer, inserting it, running a network with deviations, folding them back."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from metafilm import MetafilmError, film, norms
from metafilm.backbones import MLP, Conv4, ResNet12


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry, self.norm, self.exit = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.exit(torch.tanh(self.norm(self.entry(x))))


def conv1d() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 6, 3, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 3))


def bare_norms() -> nn.Module:
    """Norms without an affine of their own."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4, affine=False), nn.ReLU(), nn.BatchNorm2d(4, affine=False)
    )


NETWORKS = {
    "conv4-running": (lambda: Conv4((3, 16, 16), 4), (6, 3, 16, 16), "all"),
    "conv4-group": (lambda: Conv4((3, 16, 16), 4, "group"), (6, 3, 16, 16), "all"),
    "conv4-first": (lambda: Conv4((3, 16, 16), 4), (6, 3, 16, 16), "blocks.0.norm"),
    "resnet12": (lambda: ResNet12((3, 16, 16), 2), (6, 3, 16, 16), "all"),
    "resnet12-convolution": (lambda: ResNet12((3, 16, 16), 2), (6, 3, 16, 16), ["blocks.0.convs.0"]),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=3), (6, 3, 32, 32), "all"),
    "mlp": (lambda: MLP(5, (8, 7)), (6, 5), "all"),
    "linear-sequence": (Sequence, (6, 5, 6), ["entry", "exit"]),
    "layernorm": (Sequence, (6, 5, 6), "all"),
    "conv1d": (conv1d, (6, 2, 9), ["0", "1", "3"]),
    "bare-norms": (bare_norms, (6, 3, 8, 8), "all"),
}


@pytest.fixture(params=NETWORKS)
def network(request, disturb):
    """A FiLMed network in eval mode and an input of six rows."""
    make, shape, sites = NETWORKS[request.param]
    torch.manual_seed(0)
    plain = make()
    disturb(plain, by=0.05)
    return film.insert(plain, sites).eval(), torch.randn(shape)


def test_a_batch_of_tasks_is_each_task_alone(network, random_film) -> None:
    net, x = network
    deviations = random_film(net, tasks=3)
    with torch.no_grad():
        together = film.call(net, deviations, x)
        alone = [
            film.call(net, {k: v[t] for k, v in deviations.items()}, x[2 * t : 2 * t + 2]) for t in range(3)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert (alone[0] - film.call(net, {}, x[:2])).abs().max() > 1e-3


def test_fold(network, random_film) -> None:
    net, x = network
    deviations = random_film(net)
    with torch.no_grad():
        expected = film.call(net, deviations, x)
        plain = film.fold(net, deviations)
        found = plain(x)
        scale = max(1.0, float(expected.abs().max()))
        assert (found - expected).abs().max() < 1e-5 * scale
        assert (found - net(x)).abs().max() > 1e-3
    assert not film.sites(plain)
    assert not any(isinstance(module, film.FiLM) for module in plain.modules())
    assert not any(module._forward_hooks for module in plain.modules())
    assert film.sites(net), "the network itself is left as it was"


@pytest.mark.parametrize("mode", norms.MODES)
def test_fold_in_every_norm_mode(mode, random_film, disturb) -> None:
    net = film.insert(Conv4((1, 16, 16), 4, mode))
    disturb(net)
    net.eval()
    x, deviations = torch.rand(5, 1, 16, 16), random_film(net)
    with torch.no_grad():
        expected = film.call(net, deviations, x)
        torch.testing.assert_close(film.fold(net, deviations)(x), expected, rtol=1e-5, atol=1e-5)


def test_fold_of_the_network_s_own_deviations(random_film) -> None:
    net = film.insert(MLP(3, (4,)))
    for name, value in random_film(net).items():
        film.parameters(net)[name].data.copy_(value)
    x = torch.randn(2, 3)
    torch.testing.assert_close(film.fold(net)(x), net(x))


@pytest.mark.parametrize(("shape", "dim"), [((6, 4), 1), ((6, 4, 3), 1), ((6, 4, 3, 2), 1), ((6, 5, 4), -1)])
def test_modulate_against_loops(shape, dim) -> None:
    x, gain, shift = torch.randn(shape), torch.randn(3, 4), torch.randn(3, 4)
    expected = torch.empty_like(x)
    for row in range(6):
        for channel in range(4):
            index = (row, ..., channel) if dim == -1 else (row, channel)
            expected[index] = gain[row // 2, channel] * x[index] + shift[row // 2, channel]
    torch.testing.assert_close(film.modulate(x, gain, shift, dim), expected)
    torch.testing.assert_close(film.modulate(x[:2], gain[0], shift[0], dim), expected[:2])


class ConvNextLayerNorm(nn.Module):
    """As facebookresearch/ConvNeXt and transformers have it."""

    def __init__(self, features: int, data_format: str) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.normalized_shape, self.data_format = (features,), data_format

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.data_format == "channels_first"
        y = x.movedim(1, -1) if first else x
        y = F.layer_norm(y, self.normalized_shape, self.weight, self.bias)
        return y.movedim(-1, 1) if first else y


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_layer_norm_may_be_told_where_its_channels_are(layout) -> None:
    """Of maps as high and wide as there are channels, where nothing else would tell."""
    network = film.insert(nn.Sequential(ConvNextLayerNorm(4, layout)).double())
    deviations = {name: torch.randn(4).double() for name in film.parameters(network)}
    x = torch.randn(2, 4, 4, 4).double()
    plain, gain = network(x), 1 + deviations["0.film.delta_gamma"]
    shape = (-1, 1, 1) if layout == "channels_first" else (-1,)
    expected = plain * gain.view(shape) + deviations["0.film.delta_beta"].view(shape)
    torch.testing.assert_close(film.call(network, deviations, x), expected)
    torch.testing.assert_close(film.fold(network, deviations)(x), expected)


def test_layer_norm_2d_holds_channels_second() -> None:
    """ConvNeXt's LayerNorm2d is an nn.LayerNorm whose output is [B, C, H, W]."""
    layer = torchvision.models.convnext.LayerNorm2d(4)
    net = film.insert(nn.Sequential(layer))
    x, beta = torch.randn(2, 4, 4, 4), torch.arange(4.0)
    found = film.call(net, {"0.film.delta_beta": beta}, x)
    torch.testing.assert_close(found, net(x) + beta.view(1, 4, 1, 1))
    torch.testing.assert_close(film.fold(net, {"0.film.delta_beta": beta})(x), found)


def test_sites_by_name() -> None:
    assert list(film.sites(film.insert(Conv4((1, 16, 16), 4), "last"))) == ["blocks.3.norm"]
    assert film.sites(film.insert(Conv4((1, 16, 16), 4), "none")) == {}
    assert film.sites(film.insert(MLP(2, (4, 3)))) == {"layers.0": 4, "layers.1": 3}
    assert len(film.sites(film.insert(torchvision.models.resnet18()))) == 20
    assert len(film.sites(film.insert(ResNet12((1, 16, 16), 2)))) == 12


def test_insertion_is_whole_or_not_at_all() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    for wrong in (["1", "typo"], ["1", "2"], ["1", "1"]):
        with pytest.raises(MetafilmError):
            film.insert(net, wrong)
        assert not film.sites(net) and not net[1]._forward_hooks
    assert film.sites(film.insert(net, ["1"])) == {"1": 4}


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_norm_over_several_dimensions_is_refused(norm) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), norm([4, 5, 6], elementwise_affine=False))
    with pytest.raises(MetafilmError, match=r"module '1' .* normalises over \(4, 5, 6\)"):
        film.insert(network)
    assert film.sites(film.insert(network, ["0"])) == {"0": 4}


def test_a_norm_without_weights_has_film_like_its_averages_or_its_network() -> None:
    averaged = film.insert(nn.Sequential(nn.BatchNorm2d(4, affine=False)).to("meta"))
    assert all(value.is_meta for value in film.parameters(averaged).values())
    bare = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4, affine=False)).double()
    own = film.parameters(film.insert(bare))
    for value in own.values():
        value.data.fill_(0.5)
    x = torch.randn(2, 1, 5, 5).double()
    torch.testing.assert_close(film.fold(bare)(x), bare(x))


def test_the_last_so_many_sites() -> None:
    every = list(film.sites(film.insert(torchvision.models.resnet18())))
    for count in (1, 8, 20):
        found = film.sites(film.insert(torchvision.models.resnet18(), f"last {count}"))
        assert list(found) == every[-count:]
    with pytest.raises(MetafilmError, match="no 'last 21' sites in ResNet, which has 20 usual ones"):
        film.insert(torchvision.models.resnet18(), "last 21")
    for odd in ("last 0", "last -1", "last 08", "last  8", "last n"):
        with pytest.raises(MetafilmError, match=f"no module {odd!r}"):
            film.insert(torchvision.models.resnet18(), odd)


def test_left_out_names_keep_the_network_s_own(random_film) -> None:
    net = film.insert(MLP(3, (4, 4)))
    deviations = random_film(net)
    name, value = next(iter(deviations.items()))
    own = copy.deepcopy(net)
    film.parameters(own)[name].data.copy_(value)
    x = torch.randn(2, 3)
    assert torch.equal(film.call(net, {name: value}, x), own(x))


@pytest.mark.parametrize("mode", norms.MODES)
def test_rows_with_statistics_for_all_and_no_rows(mode, random_film, disturb) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), norms.Norm(4, mode))
    disturb(network)
    film.insert(network).eval()
    deviations, x = random_film(network, tasks=3), torch.rand(4, 1, 6, 6)
    shared = torch.rand(2, 4) + 0.5
    rows = torch.tensor([2, 0, 0, 1])
    found = film.call(network, deviations, x, rows, {"1": shared})
    each = film.call(network, deviations, x, rows, {"1": shared.expand(3, 2, 4)})
    torch.testing.assert_close(found, each)
    for statistics in (shared, shared.expand(3, 2, 4)):
        none = film.call(network, deviations, x[:0], rows[:0], {"1": statistics})
        assert none.shape == (0, 4, 4, 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weights": {"0.wieght": torch.zeros(4, 1, 3, 3)}}, "no parameter '0.wieght'"),
        ({"weights": {"0.weight": torch.zeros(4, 1, 5, 5)}}, r"the network's own has \(4, 1, 3, 3\)"),
        ({"weights": {"1.running_mean": torch.zeros(4)}}, "no parameter"),
        ({"statistics": {"1": torch.ones(3, 2, 5)}}, r"expected \(tasks, 2, 4\) or \(2, 4\)"),
        ({"statistics": {"1": torch.ones(2, 2, 4)}}, "3 of '1.film.delta_gamma', 2 of 'the statistics of 1'"),
        ({"statistics": {"0": torch.ones(2, 4)}}, "no metafilm norm"),
    ],
)
def test_what_does_not_fit_is_named(random_film, given, said) -> None:
    network = film.insert(nn.Sequential(nn.Conv2d(1, 4, 3), norms.Norm(4, "support"))).eval()
    with pytest.raises(MetafilmError, match=said):
        film.call(network, random_film(network, tasks=3), torch.rand(6, 1, 6, 6), **given)


@pytest.mark.parametrize("shape", [(), (7,), (1,), (3, 7), (3, 1), (3, 7, 1, 1)])
def test_deviations_of_another_width_are_refused(shape) -> None:
    for features in (1, 4):
        network = film.insert(nn.Sequential(nn.Conv2d(1, features, 3), nn.BatchNorm2d(features))).eval()
        if shape[:2][-1:] != (features,):
            for name in film.names("1"):
                with pytest.raises(MetafilmError, match=rf"expected \({features},\), or \(tasks, {features}"):
                    film.call(network, {name: torch.zeros(shape)}, torch.rand(3, 1, 6, 6))


def test_errors() -> None:
    net = film.insert(Conv4((1, 16, 16), 4), ["blocks.0.norm"])
    x = torch.rand(5, 1, 16, 16)
    with pytest.raises(MetafilmError, match=r"no module 'blocks\.9\.norm'.*blocks\.0\.norm, blocks\.1\.norm"):
        film.insert(net, ["blocks.9.norm"])
    with pytest.raises(MetafilmError, match=r"no module 'typo' .* usual sites are: none"):
        film.insert(nn.Sequential(nn.Linear(3, 4)), "typo")
    with pytest.raises(MetafilmError, match="has a FiLM layer already"):
        film.insert(net, "blocks.0.norm")
    with pytest.raises(MetafilmError, match=r"how many features module 'blocks\.0\.pool' \(MaxPool2d\)"):
        film.insert(net, "blocks.0.pool")
    with pytest.raises(MetafilmError, match=r"5 rows can't be shared evenly by 2 tasks"):
        film.call(net.eval(), film.zeros(net, 2), x)
    with pytest.raises(
        MetafilmError, match=r"no deviations 'blocks\.1\.norm\.film\.delta_beta'.*blocks\.0\.norm"
    ):
        film.call(net, {"blocks.1.norm.film.delta_beta": torch.zeros(4)}, x)
    with pytest.raises(MetafilmError, match=r"shape \(3,\), the network expects \(4,\)"):
        film.fold(net, {"blocks.0.norm.film.delta_beta": torch.zeros(3)})
    with pytest.raises(MetafilmError, match="the network expects no such parameter"):
        film.fold(net, {"nowhere": torch.zeros(3)})
    with pytest.raises(MetafilmError, match="transposed"):
        film.fold(film.insert(nn.Sequential(nn.ConvTranspose2d(2, 3, 2)), ["0"]))
