"""The compiled kernels against PyTorch's operations in float64."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from metafilm.backbones import Conv4
from metafilm.engine import kernels
from metafilm.engine.convolution import Conv2d, conv2d
from metafilm.engine.native import functions as native
from metafilm.errors import MetafilmError

needs_compiler = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
PRECISION = {torch.float32: 2e-6, torch.bfloat16: 1e-2}
CASES = [(1, None, 14), (3, None, 7), (3, 2, 14), (2, 1, 5)]


def close(found, expected, precision) -> None:
    scale = expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=precision * max(scale, 1e-3))


@pytest.fixture(params=[1, 2], autouse=True)
def threads(request, monkeypatch):
    """On one thread, and cut into pieces for two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(native, "PARALLEL", 1)
    yield request.param
    torch.set_num_threads(before)


@needs_compiler
@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize(("tasks", "rows", "side"), CASES)
def test_pool_and_moments(dtype, tasks, rows, side) -> None:
    torch.manual_seed(0)
    maps = (torch.randn(tasks * 4, 8, side, side + 1) * 2 + 1).to(dtype)
    y = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = maps.double().requires_grad_()
    assert native.fits(y) and not native.fits(exact)
    found, expected = (kernels.pool_and_moments(m, tasks, rows) for m in (y, exact))
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs, 1e-6)
    weights = [torch.randn_like(value) for value in expected]
    ours, theirs = (
        torch.autograd.grad(sum((v.double() * w).sum() for v, w in zip(vs, weights, strict=True)), m)[0]
        for vs, m in ((found, y), (expected, exact))
    )
    close(ours, theirs, PRECISION[dtype])


@needs_compiler
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e4])
def test_one_task_s_pictures_reach_no_other_s_moments(value) -> None:
    torch.manual_seed(0)
    maps = torch.randn(6, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    alone = kernels.pool_and_moments(maps[3:])
    maps[0, :, 0, 0] = value
    together = kernels.pool_and_moments(maps, 2)
    assert torch.equal(together[0][3:], alone[0])
    assert torch.equal(together[1][1], alone[1][0]) and torch.equal(together[2][1], alone[2][0])


@pytest.mark.parametrize("channels", [1, 3])
def test_no_pictures_give_no_features(channels) -> None:
    network = Conv4((channels, 16, 16), 8).eval()
    assert network(torch.zeros(0, channels, 16, 16)).shape == (0, 8)


@needs_compiler
@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("tasks", [1, 3])
def test_affine_relu(dtype, tasks) -> None:
    torch.manual_seed(0)
    x = torch.randn(tasks * 4, 8, 5, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    gain, shift = torch.randn(tasks, 8), torch.randn(tasks, 8)
    results = []
    for inputs in ((x, gain, shift), (x.double(), gain.double(), shift.double())):
        inputs = [value.detach().requires_grad_() for value in inputs]
        out = kernels.affine_relu(*inputs)
        results.append((out, *torch.autograd.grad((out.double() * (x.double() + 0.3)).sum(), inputs)))
    for found, expected in zip(*results, strict=True):
        close(found, expected, PRECISION[dtype])


@needs_compiler
@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize(("tasks", "rows", "side"), CASES)
def test_stem(dtype, tasks, rows, side) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(tasks * 4, 1, side, side + 1), torch.randn(16, 1, 3, 3)
    convolution = Conv2d(1, 16, 3, padding=1, bias=False)
    assert kernels.stem_fits(convolution, x)
    ours, theirs = weight.clone().requires_grad_(), weight.double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = kernels.stem_pool_and_moments(x, ours, tasks, rows)
    assert found[0].dtype == dtype
    maps = conv2d(x.double(), theirs, ((1, 1), (1, 1), (1, 1), 1))
    expected = kernels.pool_and_moments(maps, tasks, rows)
    for a, b in zip(found, expected, strict=True):
        close(a, b, PRECISION[dtype])
    weights = [torch.randn_like(value) for value in expected]
    gradients = [
        torch.autograd.grad(sum((v.double() * w).sum() for v, w in zip(vs, weights, strict=True)), m)[0]
        for vs, m in ((found, ours), (expected, theirs))
    ]
    close(*gradients, PRECISION[dtype])


@needs_compiler
def test_a_stem_wider_than_the_kernels_goes_through_pytorch() -> None:
    """In a process of its own: what used to follow was its end."""
    script = (
        "import torch\n"
        "from metafilm.backbones.conv4 import Block\n"
        "block = Block(1, 4096, 'transductive').train()\n"
        "x = torch.rand(2, 1, 28, 28)\n"
        "found = block(x)\n"
        "expected = torch.relu(block.pool(block.norm(block.conv(x))))\n"
        "torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)\n"
        "found.sum().backward()\n"
        "print(bool(block.conv.weight.grad.isfinite().all()))\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (found.returncode, found.stdout) == (0, "True\n"), found.stderr


def every_kernel(channels, side=4) -> dict:
    """Name -> a call of each kernel on the same numbers, two rows of one task."""
    generator = torch.Generator().manual_seed(0)

    def maps(*shape):
        found = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        return found.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else found

    x, weight, line = maps(2, 1, side, side), maps(channels, 1, 3, 3), maps(1, channels)
    y, small = maps(2, channels, side, side), maps(2, channels, side // 2, side // 2)
    places = torch.zeros_like(small, dtype=torch.uint8).permute(0, 2, 3, 1)
    return {
        "pool": lambda: native.pool(y, 1, 2),
        "unpool": lambda: native.unpool(small, places, y, line, line, 2),
        "gather": lambda: native.gather(y, places),
        "affine": lambda: native.affine(y, line, line),
        "affine_gradient": lambda: native.affine_gradient(y, y, y, line),
        "stem": lambda: native.stem(x, weight, torch.float32, 1, 2),
        "stem_gradient": lambda: native.stem_gradient(x, weight, small, places, line, line, 2),
    }


@needs_compiler
@pytest.mark.parametrize("name", every_kernel(1))
def test_too_many_channels_are_refused_in_c(name) -> None:
    """Each kernel looks itself, whoever calls it."""
    most = native.MOST_CHANNELS
    every_kernel(most)[name]()
    with pytest.raises(MetafilmError, match=f"{name}_float32 takes 1 to {most} channels"):
        every_kernel(most + 1)[name]()


@needs_compiler
@pytest.mark.parametrize("more", [0, 1])
def test_no_more_channels_are_offered_than_taken(more) -> None:
    channels = native.MOST_CHANNELS + more
    assert native.fits(torch.empty(1, channels, 2, 2)) == (not more)
    convolution = Conv2d(1, channels, 3, padding=1, bias=False)
    assert kernels.stem_fits(convolution, torch.empty(1, 1, 4, 4)) == (not more)


@needs_compiler
@pytest.mark.parametrize("setting", ["meta device", "float64 by default"])
def test_the_callers_defaults_change_nothing(setting) -> None:
    """In a process of its own: a kernel that writes through the null pointer of the meta device ends it."""
    script = (
        "import sys, torch\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from test_native import every_kernel\n"
        "calls = every_kernel(8)\n"
        "before = {name: call() for name, call in calls.items()}\n"
        + ("torch.set_default_device('meta')\n" if setting == "meta device" else "")
        + ("torch.set_default_dtype(torch.float64)\n" if setting == "float64 by default" else "")
        + "for name, call in calls.items():\n"
        "    found, expected = (v if isinstance(v, tuple) else (v,) for v in (call(), before[name]))\n"
        "    for a, b in zip(found, expected, strict=True):\n"
        "        assert (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b), name\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr


def outer_gradient(learner, episode) -> torch.Tensor:
    from metafilm.training.outer_gradient import accumulate

    learner.zero_grad()
    accumulate(learner, episode, learner.config)
    parameters = learner.outer_parameters().values()
    return torch.cat([p.grad.double().flatten() for p in parameters if p.grad is not None])


@needs_compiler
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_whole_second_order_gradient(make_learner, make_episode, monkeypatch, precision) -> None:
    """Against float64: as near as PyTorch's own operations come at the same precision."""
    import copy

    learner = make_learner(backbone={"width": 16}, inner={"steps": 2}, outer={"penalty": 0.3}).train()
    episode = make_episode(tasks=3)
    expected = outer_gradient(learner, episode)
    single = copy.deepcopy(learner).float()
    single.autocast = precision == "bfloat16"
    floats = episode._map(lambda t: t.float() if t.is_floating_point() else t)
    found = outer_gradient(single, floats)
    monkeypatch.setattr(native, "library", lambda: None)
    plain = outer_gradient(single, floats)
    assert not torch.equal(found, plain)  # two ways, not one
    allowed = 1.5 * (plain - expected).norm() + 1e-5 * expected.norm()
    assert (found - expected).norm() <= allowed


@needs_compiler
def test_the_stem_twice_differentiated() -> None:
    """Where somebody asks for the weights' second derivatives, they are there."""
    torch.manual_seed(0)
    x, weight = torch.randn(4, 1, 6, 6), torch.randn(8, 1, 3, 3)
    results = []
    for path in ("stem", "maps"):
        w = (weight if path == "stem" else weight.double()).clone().requires_grad_()
        if path == "stem":
            found = kernels.stem_pool_and_moments(x, w, 2)
        else:
            maps = conv2d(x.double(), w, ((1, 1), (1, 1), (1, 1), 1))
            found = kernels.pool_and_moments(maps, 2)
        value = sum(v.square().sum() for v in found)
        (first,) = torch.autograd.grad(value, w, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), w)[0])
    close(results[0], results[1], 1e-5)


@needs_compiler
def test_negative_gains(make_learner, make_episode) -> None:
    """There the least value of a window becomes the greatest: pooling before the norm must notice."""
    from metafilm import film, norms

    learner = make_learner(dtype=torch.float32, encoder={"enabled": False}).train()
    block = learner.backbone.blocks[0]
    x = torch.randn(6, 1, 16, 16)
    with torch.no_grad():
        block.norm.weight[::2] *= -1
    with norms.layout(2):
        found = block(x)
        expected = torch.relu(block.pool(block.norm(block.conv(x))))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert film.sites(learner.backbone)


def test_nan_is_not_lost() -> None:
    """A diverged network must be seen to have diverged."""
    y = torch.zeros(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    y[0, 3, 1, 1] = float("nan")
    _, mean, var = kernels.pool_and_moments(y)
    assert mean[0, 3].isnan() and var[0, 3].isnan() and mean[0, :3].isfinite().all()
    out = kernels.affine_relu(y, torch.full((1, 8), float("nan")), torch.zeros(1, 8))
    assert out.isnan().all()


def windows_with_nan(channels=16) -> torch.Tensor:
    """Every set of a window's four places holds NaN in one of the windows; the other values vary, zero among
    them."""
    y = torch.randint(-2, 3, (2, channels, 8, 9), generator=torch.Generator().manual_seed(0)).float()
    for pattern in range(16):
        i, j = 2 * (pattern // 4), 2 * (pattern % 4)
        for place in range(4):
            if pattern >> place & 1:
                y[0, ::2, i + place // 2, j + place % 2] = float("nan")
    return y.contiguous(memory_format=torch.channels_last)


@needs_compiler
@pytest.mark.parametrize("dtype", PRECISION)
def test_nan_is_the_greatest_of_its_window(dtype) -> None:
    """Values and places are PyTorch's, wherever in a window NaN stands and however many there are."""
    y = windows_with_nan().to(dtype)
    pooled, places, _, _ = native.pool(y, 1, 2)
    expected, indices = F.max_pool2d(y, 2, return_indices=True)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=0, equal_nan=True)
    row, column = indices // 9, indices % 9
    assert torch.equal(places.permute(0, 3, 1, 2).long(), row % 2 * 2 + column % 2)


@needs_compiler
@pytest.mark.parametrize("dtype", PRECISION)
def test_nan_in_an_image_reaches_all_that_sees_it(dtype) -> None:
    x, weight = torch.rand(2, 1, 8, 9), torch.randn(16, 1, 3, 3)
    x[0, 0, 3, 4] = float("nan")
    pooled, places, mean, var = native.stem(x, weight, dtype, 2, 1)
    expected, indices = F.max_pool2d(F.conv2d(x, weight, padding=1), 2, return_indices=True)
    torch.testing.assert_close(
        pooled.float(), expected, rtol=PRECISION[dtype], atol=PRECISION[dtype], equal_nan=True
    )
    lost = expected.isnan()
    where = (indices // 9 % 2 * 2 + indices % 9 % 2)[lost]
    assert lost.any() and torch.equal(places.permute(0, 3, 1, 2).long()[lost], where)
    assert mean[0].isnan().all() and var[0].isnan().all() and mean[1].isfinite().all()


@needs_compiler
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0x7F800001, -1, -0x400000])
def test_rounding_keeps_nan(bits) -> None:
    """Whatever its sign and mantissa."""
    gain = torch.tensor([[bits]], dtype=torch.int32).view(torch.float32).expand(1, 16).contiguous()
    y = torch.ones(2, 16, 4, 4, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    line, image = torch.zeros(1, 16), torch.ones(2, 1, 4, 4)
    small = y[..., :2, :2].contiguous(memory_format=torch.channels_last)
    places = torch.zeros(2, 2, 2, 16, dtype=torch.uint8)
    weight = gain.view(16, 1, 1, 1).expand(16, 1, 3, 3).contiguous()
    assert gain.isnan().all()
    for rounded in (
        native.affine(y, gain, line),
        native.affine(y, line, gain),
        native.affine_gradient(y, y, y, gain)[0],
        native.unpool(small, places, y, gain, line, 2),
        native.unpool(small, places, y, line, gain, 2),
        native.stem(image, weight, torch.bfloat16, 1, 2)[0],
    ):
        assert rounded.dtype == torch.bfloat16 and rounded.isnan().all()
    assert native.unpool(small, places, y, gain, gain, 1)[1].isfinite().all()  # moments are of the first row


@needs_compiler
@pytest.mark.parametrize("dtype", PRECISION)
def test_nan_is_kept_in_the_gradients(dtype) -> None:
    """Of a ReLU that gave NaN, PyTorch passes the gradient on."""
    y = windows_with_nan().to(dtype)
    gain, shift, grad = torch.ones(1, 16), torch.zeros(1, 16), torch.ones_like(y)
    out = native.affine(y, gain, shift)
    of_x, _, of_shift = native.affine_gradient(grad, out, y, gain)
    expected = torch.ops.aten.threshold_backward(grad, torch.relu(y), 0)
    torch.testing.assert_close(of_x, expected, rtol=0, atol=0)
    torch.testing.assert_close(of_shift[0], expected.float().sum((0, 2, 3)))


@pytest.mark.parametrize(
    ("gain", "shift"), [((2, 8), (1, 8)), ((2, 4), (2, 4)), ((0, 8), (0, 8)), ((3, 8), (3, 8))]
)
def test_gains_that_do_not_fit_the_maps_are_refused(gain, shift) -> None:
    """They would be read beyond their end."""
    x = torch.rand(4, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    with pytest.raises(MetafilmError, match="T a divisor of the rows"):
        native.affine(x, torch.rand(gain), torch.rand(shift))
