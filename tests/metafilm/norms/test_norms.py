"""Norm modes: whose statistics, against PyTorch's own layers and loops."""

import copy

import pytest
import torch
from torch import nn

from metafilm import MetafilmError, film, norms
from metafilm.backbones import Conv4

X = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def layer(mode: str, training: bool = True) -> norms.Norm:
    norm = norms.Norm(4, mode).double().train(training)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0, 0.3]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3, 0.0]))
        norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.0, 0.5]))
        norm.running_var.copy_(torch.tensor([0.5, 1.5, 2.0, 1.0]))
    return norm


def by_hand(x: torch.Tensor, source: torch.Tensor, norm: norms.Norm) -> torch.Tensor:
    out = torch.empty_like(x)
    for c in range(4):
        mean, var = source[:, c].mean(), source[:, c].var(correction=0)
        out[:, c] = (x[:, c] - mean) / (var + norm.eps).sqrt() * norm.weight[c] + norm.bias[c]
    return out


def test_running_in_evaluation_is_batch_norm() -> None:
    norm = layer("running", training=False)
    reference = nn.BatchNorm2d(4).double().eval()
    reference.load_state_dict(norm.state_dict())
    assert torch.equal(norm(X), reference(X))


@pytest.mark.parametrize("mode", ["running", "transductive"])
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_a_task_s_own_images_in_this_pass(mode, tasks) -> None:
    for training in (True, False) if mode == "transductive" else (True,):
        norm = layer(mode, training)
        with norms.layout(tasks, support=1):
            found = norm(X)
        expected = torch.cat([by_hand(part, part, norm) for part in X.chunk(tasks)])
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("support", [1, 2, None])
def test_support_mode_reads_support_rows_alone(training, support) -> None:
    norm = layer("support", training)
    with norms.layout(2, support):
        found = norm(X)
    expected = torch.cat([by_hand(part, part[:support], norm) for part in X.chunk(2)])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("channels", [4, 6, 7, 16])
def test_group_mode_is_group_norm(channels) -> None:
    norm = norms.Norm(channels, "group")
    assert channels % norm.groups == 0 and 1 <= norm.groups <= 8
    x = torch.randn(3, channels, 4, 4)
    torch.testing.assert_close(norm(x), nn.functional.group_norm(x, norm.groups))
    torch.testing.assert_close(norm(x)[1], norm(x[1:2])[0])


def test_running_averages_move_by_the_mean_over_tasks_when_committed() -> None:
    norm = layer("running")
    before = norm.running_mean.clone(), norm.running_var.clone()
    with norms.layout(2, record=True):
        norm(X)
    with norms.layout(1, record=True):
        norm(X[:4] * 2)
    assert torch.equal(norm.running_mean, before[0]) and torch.equal(norm.running_var, before[1])
    norms.commit(norm)
    parts = [X[:4], X[4:], X[:4] * 2]
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    var = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)
    torch.testing.assert_close(norm.running_mean, 0.9 * before[0] + 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 * before[1] + 0.1 * var)
    assert norm.num_batches_tracked == 1
    moved = norm.running_mean.clone()
    norms.commit(norm)
    assert torch.equal(norm.running_mean, moved), "nothing new was recorded"


def test_one_task_moves_them_as_batch_norm_does() -> None:
    norm = layer("running")
    reference = nn.BatchNorm2d(4).double()
    reference.load_state_dict(norm.state_dict())
    reference(X)
    with norms.layout(1, record=True):
        norm(X)
    norms.commit(norm)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)


def test_nothing_is_recorded_unasked_nor_after_discard() -> None:
    norm = layer("running")
    before = norm.running_mean.clone()
    norm(X)
    with norms.layout(1, record=True):
        norm(X)
    norms.discard(norm)
    norms.commit(norm)
    with norms.layout(1, record=True):
        norm.eval()(X)
    norms.commit(norm)
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("mode", ["support", "transductive"])
def test_captured_statistics_give_the_same_plain_layer(mode) -> None:
    net = nn.Sequential(layer(mode, training=False))
    with norms.layout(1, capture=True):
        expected = net(X)
    plain = norms.plain(net)
    assert type(plain[0]) is nn.BatchNorm2d
    torch.testing.assert_close(plain(X), expected)


@pytest.mark.parametrize("mode", ["running", "group"])
def test_plain(mode) -> None:
    net = Conv4((1, 16, 16), 4, mode).eval()
    x = torch.rand(2, 1, 16, 16)
    expected = net(x)
    plain = norms.plain(net)
    assert not any(isinstance(module, norms.Norm) for module in plain.modules())
    torch.testing.assert_close(plain(x), expected)


def test_the_state_dict_is_batch_norm_s() -> None:
    assert set(norms.Norm(4).state_dict()) == set(nn.BatchNorm2d(4).state_dict())


def test_mode_of() -> None:
    for mode in norms.MODES:
        assert norms.mode_of(Conv4((1, 16, 16), 4, mode)) == mode
    assert norms.mode_of(nn.Sequential(nn.BatchNorm2d(3))) == "running"
    with pytest.raises(MetafilmError, match="several modes: group, running"):
        norms.mode_of(nn.Sequential(norms.Norm(4), norms.Norm(4, "group")))
    with pytest.raises(MetafilmError, match=r"norm '1' \(BatchNorm2d\) has no running averages"):
        norms.mode_of(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4, track_running_stats=False)))


def test_errors() -> None:
    with pytest.raises(MetafilmError, match=r"unknown norm mode 'batch'; expected one of running, support"):
        norms.Norm(4, "batch")
    for mode in ("support", "transductive"):
        with pytest.raises(MetafilmError, match="8 rows can't be shared evenly by 3 tasks"), norms.layout(3):
            layer(mode)(X)
        net = film.insert(nn.Sequential(layer(mode)))
        with pytest.raises(MetafilmError, match=r"deviations of 2 tasks in a pass laid out for 1"):
            film.call(net, film.zeros(net, 2), X)


def test_bfloat16_statistics_are_float32() -> None:
    """The mean of many bf16 numbers needs more than eight bits."""
    norm = norms.Norm(4, "support")
    x = torch.rand(64, 4, 16, 16, generator=torch.Generator().manual_seed(0)) + 1
    found = norm(x.bfloat16()).float()
    assert (found - norm(x)).abs().max() < 0.2
    assert found.mean((0, 2, 3)).abs().max() < 0.02


def test_a_converted_network_computes_the_same_and_keeps_tasks_apart() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
    )
    for layer in plain:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, -1, 1)
    ours = norms.convert(copy.deepcopy(plain))
    images = torch.rand(6, 1, 8, 8)
    torch.testing.assert_close(ours.eval()(images), plain.eval()(images), rtol=0, atol=0)
    assert ours.state_dict().keys() == plain.state_dict().keys() and not norms.foreign(ours)
    ours.train()
    with norms.layout(tasks=2):
        both = ours(images)
    with norms.layout(tasks=1):
        torch.testing.assert_close(both[3:], ours(images[3:]))
    with pytest.raises(MetafilmError, match="'1' can't be converted: it has a FiLM layer already"):
        norms.convert(film.insert(plain))
    with pytest.raises(MetafilmError, match="'0' can't be converted: it has no affine"):
        norms.convert(nn.Sequential(nn.BatchNorm2d(2, affine=False)))


def test_a_shared_layer_stays_shared_there_and_back() -> None:
    network, shared = nn.Module(), nn.BatchNorm2d(4)
    network.one, network.other, network.within = shared, shared, nn.Sequential(shared)
    shared.requires_grad_(False)
    tensors = dict(shared.named_parameters()) | dict(shared.named_buffers())
    for kind in (norms.Norm, nn.BatchNorm2d):
        (norms.convert if kind is norms.Norm else norms.plain)(network)
        assert network.one is network.other is network.within[0] and type(network.one) is kind
        assert all(getattr(network.one, name) is value for name, value in tensors.items())


def test_conversion_is_whole_or_not_at_all() -> None:
    for refused, why in (
        (nn.BatchNorm2d(2, affine=False), "has no affine"),
        (nn.BatchNorm2d(2, momentum=None), "averages over all batches alike; give it a momentum"),
    ):
        network = nn.Sequential(nn.BatchNorm2d(2), refused)
        with pytest.raises(MetafilmError, match=f"'1' can't be converted: it {why}"):
            norms.convert(network)
        assert type(network[0]) is nn.BatchNorm2d
