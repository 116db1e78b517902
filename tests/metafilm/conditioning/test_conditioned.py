"""A network and what conditions it: any network, every way to condition it."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from metafilm import MetafilmError, film, norms
from metafilm.backbones import Conv4
from metafilm.conditioning import (
    ClassEncoder,
    Conditioned,
    DualAttention,
    NoCondition,
    SequenceEncoder,
    map_sizes,
    site_output,
)
from metafilm.conditioning.condition import MODULATIONS
from metafilm.conditioning.conditioned import averages_of

WORDS = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [2, 2, 3, 0], [1, 1, 2, 4]])
PICTURES = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def small(channels: int = 5) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 2))


def waken(condition: nn.Module) -> nn.Module:
    nn.init.normal_(condition.multiplier)
    return condition


@pytest.mark.parametrize("training", [False, True])
def test_identity_at_start_of_a_network_of_somebody_else_s(training) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=7).train(training)
    with torch.no_grad():
        expected = network(PICTURES)
        film.insert(network)
        model = Conditioned(network, SequenceEncoder(5, film.sites(network))).train(training)
        assert torch.equal(model(PICTURES, WORDS), expected)
        waken(model.condition)
        assert (model(PICTURES, WORDS) - expected).abs().max() > 1e-2
        assert torch.equal(Conditioned(network, NoCondition()).train(training)(PICTURES), expected)


def test_a_condition_for_all_for_each_and_by_index() -> None:
    network = film.insert(small()).eval()
    model = Conditioned(network, waken(ClassEncoder(3, film.sites(network)))).eval()
    with torch.no_grad():
        one = model(PICTURES, torch.tensor([2]))
        assert torch.equal(one, film.call(network, model.condition(torch.tensor([2])), PICTURES))
        each = model(PICTURES, torch.tensor([2, 0, 1, 2]))
        torch.testing.assert_close(each[[0, 3]], one[[0, 3]])
        assert (each[1] - one[1]).abs().max() > 1e-3
        rows = torch.tensor([2, 0, 1, 2])
        torch.testing.assert_close(model(PICTURES, torch.arange(3), rows=rows), each)


def test_it_learns_what_no_unconditioned_network_can() -> None:
    """The same pictures, another answer by the class."""
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 0, 1])
    pictures = PICTURES[:1].expand(4, -1, -1, -1)
    found = {}
    for name in ("class", "none"):
        network = film.insert(small())
        sites = film.sites(network)
        condition = ClassEncoder(2, sites, 4) if name == "class" else NoCondition()
        model = Conditioned(network, condition)
        optimiser = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(60):
            loss = nn.functional.cross_entropy(model(pictures, labels), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found[name] = loss.item()
    assert found["class"] < 0.1 < 0.6 < found["none"]


def test_its_norms_move_as_pytorch_s(disturb) -> None:
    """Conv-4's own norms normalise by the whole batch and move their averages, as BatchNorm2d does."""
    torch.manual_seed(0)
    network = film.insert(Conv4((3, 24, 24), 4))
    disturb(network)
    model = Conditioned(network, waken(SequenceEncoder(5, film.sites(network)))).double().train()
    pictures = PICTURES.double()
    norm = network.blocks[0].norm
    before, y = norm.running_mean.clone(), network.blocks[0].conv(pictures)
    model(pictures, WORDS)
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * y.mean((0, 2, 3)))
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(model.eval()(pictures, WORDS)[:2], model(pictures[:2], WORDS[:2]))


def test_conv4_in_training_is_what_pytorch_s_layers_make_of_it(disturb) -> None:
    """Its blocks pool before their affine; with a condition per example they can't."""
    torch.manual_seed(0)
    ours = Conv4((3, 24, 24), 4)
    disturb(ours)
    theirs = norms.plain(copy.deepcopy(ours))
    found = []
    for network in (ours, theirs):
        film.insert(network, [f"blocks.{i}.norm" for i in range(4)])
        torch.manual_seed(1)
        condition = waken(SequenceEncoder(5, film.sites(network)))
        model = Conditioned(network, condition).double().train()
        output = model(PICTURES.double(), WORDS)
        output.square().sum().backward()
        found.append(
            [output, *(p.grad for p in condition.parameters()), model.network.blocks[3].norm.running_var]
        )
    assert isinstance(theirs.blocks[0].norm, nn.BatchNorm2d)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_shift_behind_a_convolution_is_concatenation() -> None:
    """A 1×1 convolution of the maps and the condition's vector, repeated over the map."""
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 5, 1)
    network = film.insert(nn.Sequential(plain), ["0"])
    condition = waken(SequenceEncoder(5, film.sites(network), modulation="shift", scale="feature"))
    weight = condition.decoder.linear.weight * condition.multiplier[:, None]
    joined = nn.Conv2d(3 + 128, 5, 1)
    with torch.no_grad():
        joined.weight.copy_(torch.cat((plain.weight.flatten(1), weight), 1)[..., None, None])
        joined.bias.copy_(plain.bias + condition.decoder.linear.bias * condition.multiplier)
        code = condition.encode(WORDS)[..., None, None].expand(-1, -1, 24, 24)
        expected = joined(torch.cat((PICTURES, code), 1))
        torch.testing.assert_close(Conditioned(network, condition)(PICTURES, WORDS), expected)


def test_dual_attention_reads_its_site() -> None:
    network = film.insert(small(), ["0"]).eval()
    torch.manual_seed(0)
    model = Conditioned(network, waken(DualAttention(5, film.sites(network)))).eval()
    features = network[0](PICTURES)
    assert torch.equal(site_output(network, "0", PICTURES), features)
    gain = 1 + model.condition(WORDS, features)["0.film.delta_gamma"]
    torch.testing.assert_close(model(PICTURES, WORDS), network[1:](features * gain))
    rows = torch.tensor([1, 1, 0, 3])
    torch.testing.assert_close(model(PICTURES, WORDS, rows=rows), model(PICTURES, WORDS[rows]))
    for few in (WORDS[:1], WORDS[:2]):  # one for all, and each for as many rows
        own = few.repeat_interleave(4 // len(few), 0)
        torch.testing.assert_close(model(PICTURES, few), model(PICTURES, own))
    with pytest.raises(MetafilmError, match=r"4 rows can't be shared evenly by 3 conditions; give one for"):
        model(PICTURES, WORDS[:3])
    with pytest.raises(MetafilmError, match=r"rows name tasks 0 to 9, but 'condition' has shape \(4, \d\)"):
        model(PICTURES, WORDS, rows=torch.tensor([0, 9, 1, 1]))
    with pytest.raises(MetafilmError, match=r"features have shape \(4, 6, 2, 2\), expected \(4, 5, H, W\)"):
        model.condition(WORDS, torch.rand(4, 6, 2, 2))


@pytest.mark.parametrize("ours", [False, True])
def test_averages_move_once_though_a_site_is_read_first(ours) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 5, 3), nn.AdaptiveAvgPool2d(1))
    once = copy.deepcopy(plain).train()
    once(PICTURES)
    network = film.insert(norms.convert(plain) if ours else plain, ["2"])
    model = Conditioned(network, DualAttention(5, film.sites(network))).train()
    model(PICTURES, WORDS).sum().backward()
    torch.testing.assert_close(network[1].state_dict(), once[1].state_dict())
    assert network[0].weight.grad.any()


def test_a_pass_that_failed_leaves_nothing_behind() -> None:
    network = film.insert(Conv4((3, 24, 24), 4))
    model = Conditioned(network, SequenceEncoder(5, film.sites(network))).train()
    before = copy.deepcopy(network.state_dict())

    def fail(*_: object) -> None:
        raise RuntimeError("on its way")

    handle = network.features.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="on its way"):
        model(100 * PICTURES, WORDS)
    handle.remove()
    assert not any(module.recorded_tasks for module in network.modules() if isinstance(module, norms.Norm))
    torch.testing.assert_close(network.state_dict(), before)


def test_map_sizes() -> None:
    network = film.insert(small(), ["0", "1", "5"]).train()
    assert map_sizes(network, PICTURES) == {"0": (22, 22), "1": (22, 22), "5": ()}
    assert network.training and not network[1].num_batches_tracked
    condition = waken(SequenceEncoder(5, film.sites(network), maps=map_sizes(network, PICTURES)))
    assert Conditioned(network, condition)(PICTURES, WORDS).shape == (4, 2)
    with pytest.raises(MetafilmError, match=r"can't see the map of site 'blocks\.0\.norm'"):
        map_sizes(film.insert(Conv4((3, 24, 24), 4)), PICTURES)


def test_errors() -> None:
    network = film.insert(small(), ["0"])
    with pytest.raises(MetafilmError, match="no FiLM site '1' in this network; its sites: 0"):
        site_output(network, "1", PICTURES)
    model = Conditioned(network, SequenceEncoder(5, film.sites(network)))
    with pytest.raises(MetafilmError, match="4 rows can't be shared evenly by 3 tasks"):
        model(PICTURES, WORDS[:3])


@pytest.mark.parametrize("modulation", [*MODULATIONS, "dual"])
def test_what_a_condition_leaves_out_is_not_trained_instead(modulation) -> None:
    """A gain alone has no bias beside it, nor the other way around: the network's own deviations stay."""
    torch.manual_seed(0)
    network = film.insert(small())
    site = next(iter(film.sites(network)))
    if modulation == "dual":
        condition = DualAttention(5, {site: film.sites(network)[site]})
    else:
        condition = waken(SequenceEncoder(5, film.sites(network), modulation=modulation))
    model = Conditioned(network, condition)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    before = copy.deepcopy(model.state_dict())
    for _ in range(2):
        optimiser.zero_grad()
        model(PICTURES, WORDS).square().sum().backward()
        optimiser.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("condition") for name in moved) and "network.0.weight" in moved
    assert all(not value.any() for value in film.parameters(network).values())


def test_a_transform_of_torch_func_says_what_is_wrong() -> None:
    network = film.insert(norms.convert(small()))
    model = Conditioned(network, waken(ClassEncoder(3, film.sites(network)))).train()
    with pytest.raises(MetafilmError, match=r"under a torch\.func transform"):
        torch.func.grad(lambda x: model(x, torch.tensor([1])).sum())(PICTURES)


def test_reading_a_site_copies_averages_alone() -> None:
    network = film.insert(small()).train()
    network.register_buffer("table", torch.zeros(1000))
    assert set(averages_of(network)) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert averages_of(network.eval()) == {}
