"""Frozen blocks on the engine's kernels, against the same in float64, where PyTorch's operations run."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision.models.mnasnet import _InvertedResidual
from torchvision.models.mobilenetv2 import InvertedResidual

from metafilm import film
from metafilm.backbones.frozen import quicken
from metafilm.engine import native
from metafilm.engine.native import functions

needs_kernels = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
BLOCKS = {
    "expands": lambda: InvertedResidual(12, 20, 1, 6),
    "skips": lambda: InvertedResidual(18, 18, 1, 6),
    "by two": lambda: InvertedResidual(16, 8, 2, 6),
    "does not expand": lambda: InvertedResidual(50, 50, 1, 1),
    "five": lambda: _InvertedResidual(10, 10, 5, 1, 3),
    "five by two": lambda: _InvertedResidual(16, 12, 5, 2, 6),
}
TIMM = {
    "expands": ("InvertedResidual", (12, 20), {"exp_ratio": 6}),
    "as TensorFlow pads": ("InvertedResidual", (12, 20), {"exp_ratio": 6, "stride": 2, "pad_type": "same"}),
    "five, padded so": (
        "InvertedResidual",
        (9, 20),
        {"exp_ratio": 6, "stride": 2, "pad_type": "same", "dw_kernel_size": 5},
    ),
    "separable": ("DepthwiseSeparableConv", (33, 20), {}),
    "separable by two": ("DepthwiseSeparableConv", (33, 20), {"stride": 2, "pad_type": "same"}),
}


def frozen(block: nn.Module, size: int = 9, seed: int = 0) -> nn.Module:
    """With norms that have seen something, FiLM, and the quick forward."""
    torch.manual_seed(seed)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.5, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, module.weight[0].numel() ** -0.5)
    return film.insert(quicken(nn.Sequential(block)).requires_grad_(False).eval())


def timm_block(name: str) -> nn.Module:
    blocks = pytest.importorskip("timm.models._efficientnet_blocks")
    kind, channels, options = TIMM[name]
    return getattr(blocks, kind)(*channels, act_layer=nn.ReLU6, **options)


def deviations(network: nn.Module, tasks: int, dtype: torch.dtype = torch.float32) -> film.FilmDict:
    torch.manual_seed(1)
    found = {
        name: 0.2 * torch.randn_like(value) for name, value in film.zeros(network.float(), tasks).items()
    }
    return {name: value.to(dtype).requires_grad_() for name, value in found.items()}


def images(network: nn.Module, rows: int, size: int = 9) -> torch.Tensor:
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    torch.manual_seed(2)
    return torch.randn(rows, first.in_channels, size, size + 2)


def gradients(network: nn.Module, x: torch.Tensor, tasks: int, dtype: torch.dtype, order: int = 1):
    """Output, and the gradients of x and all deviations (of the second order: of their squared norm)."""
    network = copy.deepcopy(network).to(dtype)
    moved = deviations(network, tasks, dtype)
    network = network.to(dtype)
    x = x.to(dtype).requires_grad_()
    out = film.call(network, moved, x)
    inputs = [x, *moved.values()]
    loss = (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view(out.shape)).sum()
    found = torch.autograd.grad(loss, inputs, create_graph=order == 2)
    if order == 2:
        found = torch.autograd.grad(
            sum(value.square().sum() for value in found), inputs, materialize_grads=True
        )
    return out, found


def close(found, exact, tolerance: float = 2e-5) -> None:
    for one, other in zip(found, exact, strict=True):
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max() + 1e-12


def is_quick(out: torch.Tensor) -> bool:
    return type(out.grad_fn).__name__ in ("_InvertedResidualBackward", "_NormActBackward")


ALL = [*(("torchvision", name) for name in BLOCKS), *(("timm", name) for name in TIMM)]


def made(library: str, name: str) -> nn.Module:
    return frozen(BLOCKS[name]() if library == "torchvision" else timm_block(name))


@needs_kernels
@pytest.mark.parametrize("size", [9, 22])
@pytest.mark.parametrize("tasks", [1, 3, 6])
@pytest.mark.parametrize("block", ALL, ids=" ".join)
def test_a_block_is_what_float64_says(block, tasks: int, size: int):
    network = made(*block)
    x = images(network, 6, size)
    out, found = gradients(network, x, tasks, torch.float32)
    exact, expected = gradients(network, x, tasks, torch.float64)
    assert is_quick(out) and not is_quick(exact)
    close([out, *found], [exact, *expected])


@needs_kernels
@pytest.mark.parametrize("block", ALL, ids=" ".join)
def test_second_derivatives_are_right(block):
    network = made(*block)
    x = images(network, 4)
    out, found = gradients(network, x, 2, torch.float32, order=2)
    assert is_quick(out)
    close(found, gradients(network, x, 2, torch.float64, order=2)[1], 1e-4)


@needs_kernels
@pytest.mark.parametrize("block", ALL, ids=" ".join)
def test_bfloat16_is_near(block):
    network = made(*block)
    x = images(network, 4).bfloat16().float()
    moved = deviations(network, 2)
    with torch.autocast("cpu", torch.bfloat16):
        out = film.call(network, moved, x)
    assert out.dtype == torch.bfloat16 and is_quick(out)
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
    found = torch.autograd.grad((out.float() * weight).sum(), list(moved.values()))
    exact, expected = gradients(network, x, 2, torch.float64)
    close([out, *found], [exact, *expected[1:]], 0.05)


@needs_kernels
def test_threads_and_parts_change_nothing_but_rounding(monkeypatch):
    network = frozen(BLOCKS["by two"]())
    x = images(network, 7)
    before = torch.get_num_threads()
    out, found = gradients(network, x, 1, torch.float32)
    monkeypatch.setattr(functions, "PARALLEL", 1)
    monkeypatch.setattr("metafilm.engine.native.blocks.AT_ONCE", 1)
    try:
        torch.set_num_threads(3)
        again, others = gradients(network, x, 1, torch.float32)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, again)
    close(others, [value.double() for value in found], 1e-5)


@pytest.mark.parametrize("block", ALL, ids=" ".join)
def test_without_gradients_it_is_the_plain_block_bit_for_bit(block):
    network = made(*block)
    plain = copy.deepcopy(network)
    for module in plain.modules():
        module.__dict__.pop("forward", None)
    x = images(network, 2)
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))


@needs_kernels
def test_zero_deviations_are_the_plain_block_to_rounding():
    network = frozen(BLOCKS["skips"]())
    x = images(network, 2)
    zero = {name: value.requires_grad_() for name, value in film.zeros(network, 1).items()}
    out = film.call(network, zero, x)
    assert is_quick(out)
    with torch.no_grad():
        assert (out - network(x)).abs().max() < 1e-5


@needs_kernels
@pytest.mark.parametrize(
    "spoil",
    [
        lambda network: network.train(),
        lambda network: network[0].conv[2].requires_grad_(),
        lambda network: network[0].conv[0][1].weight.requires_grad_(),
        lambda network: network[0].conv[0][0].register_forward_hook(lambda *_: None),
        lambda network: network[0].conv[1].register_forward_hook(lambda *_: None),
        lambda network: network[0].conv[0].__setitem__(2, nn.SiLU()),
        lambda network: network[0].conv.__setitem__(2, nn.Conv2d(96, 8, 1)),
    ],
    ids=["training", "weight", "norm", "hook", "hook on a container", "activation", "bias"],
)
def test_what_the_kernels_do_not_know_runs_as_it_was_made(spoil):
    network = frozen(BLOCKS["by two"]())
    assert is_quick(film.call(network, deviations(network, 1), images(network, 2)))
    spoil(network)
    out = film.call(network, deviations(network, 1), images(network, 2))
    assert out.requires_grad and not is_quick(out)


@needs_kernels
@pytest.mark.parametrize("shape", ["over the map", "gain alone", "bias alone"])
def test_deviations_that_the_kernels_do_not_take(shape):
    network = frozen(BLOCKS["by two"]())
    x, moved = images(network, 6), deviations(network, 6)
    if shape == "over the map":
        name = film.names("0.conv.0.1")[0]
        moved[name] = torch.randn(6, film.sites(network)["0.conv.0.1"], 9, 11, requires_grad=True)
    else:
        moved = {k: v for k, v in moved.items() if k.endswith(film.GAIN) == (shape == "gain alone")}
    out = film.call(network, moved, x)
    assert out.requires_grad and not is_quick(out)
    for row in range(6):
        alone = film.call(
            network, {name: value[row : row + 1] for name, value in moved.items()}, x[row : row + 1]
        )
        torch.testing.assert_close(out[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@needs_kernels
def test_a_change_of_weights_is_seen():
    network = frozen(BLOCKS["by two"]())
    x = images(network, 2)
    gradients(network, x, 1, torch.float32)
    with torch.no_grad():
        network[0].conv[2].weight.mul_(2)
        network[0].conv[3].running_mean.add_(1)
    moved = deviations(network, 1)
    film.call(network, moved, x)
    with torch.no_grad():
        network[0].conv[2].weight.mul_(2)
        network[0].conv[3].running_mean.add_(1)
    out = film.call(network, moved, x)
    exact = film.call(copy.deepcopy(network).double(), {n: v.double() for n, v in moved.items()}, x.double())
    assert is_quick(out)
    close([out], [exact])


@needs_kernels
def test_averages_that_a_pass_in_training_mode_moved_are_seen():
    network = frozen(BLOCKS["by two"]())
    x, moved = images(network, 2), deviations(network, 1)
    film.call(network, moved, x)
    network.train()(5 * x)
    network.eval()
    out = film.call(network, moved, x)
    exact = film.call(copy.deepcopy(network).double(), {n: v.double() for n, v in moved.items()}, x.double())
    assert is_quick(out)
    close([out], [exact])


@needs_kernels
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_are_their_own(copied):
    network = frozen(BLOCKS["skips"]())
    twin = copied(network)
    assert twin[0].forward.module is twin[0]
    x, moved = images(network, 2), deviations(network, 1)
    with torch.no_grad():
        twin[0].conv[2].weight.zero_()
    assert is_quick(film.call(twin, moved, x))
    assert not torch.equal(film.call(twin, moved, x), film.call(network, moved, x))
    assert network.state_dict().keys() == film.insert(nn.Sequential(BLOCKS["skips"]())).state_dict().keys()


@needs_kernels
def test_nan_and_infinity_are_handed_on():
    network = frozen(BLOCKS["skips"]())
    x = images(network, 2)
    x[0, 0, 3, 3] = float("nan")
    out = film.call(network, deviations(network, 1), x)
    assert is_quick(out) and out[0].isnan().any() and out[1].isfinite().all()


@needs_kernels
def test_deviations_of_some_of_its_norms():
    torch.manual_seed(0)
    block = BLOCKS["skips"]()
    network = film.insert(quicken(nn.Sequential(block)).requires_grad_(False).eval(), ["0.conv.3"])
    x = images(network, 4)
    out, found = gradients(network, x, 2, torch.float32)
    assert is_quick(out) and len(found) == 3
    exact, expected = gradients(network, x, 2, torch.float64)
    close([out, *found], [exact, *expected])


@needs_kernels
@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, nn.Identity])
@pytest.mark.parametrize("tasks", [1, 3])
def test_a_norm_with_its_activation_is_what_float64_says(act, tasks: int):
    norms = pytest.importorskip("timm.layers.norm_act")
    norm = norms.BatchNormAct2d(20, act_layer=act)
    network = frozen(norm)
    torch.manual_seed(2)
    x = torch.randn(6, 20, 5, 7) * 3
    for order in (1, 2):
        out, found = gradients(network, x, tasks, torch.float32, order)
        assert is_quick(out)
        exact, expected = gradients(network, x, tasks, torch.float64, order)
        close([out, *found], [exact, *expected])
