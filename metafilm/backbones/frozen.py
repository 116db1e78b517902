"""Other people's frozen layers under FiLM, on the engine's kernels where it knows them.

:func:`quicken` looks through a network for inverted residual blocks (timm's and torchvision's, without
squeeze-and-excitation) and for timm's norm-and-activation layers, and gives each a ``forward`` that uses
:mod:`metafilm.engine.frozen` where deviations are about to be adapted and all else is frozen, on a CPU, in
evaluation mode. In every other case, and for every other layer, the module's own ``forward`` runs: without
gradients the network computes what it did, bit for bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.engine import frozen, native
from metafilm.engine.frozen import Deviation, Fixed
from metafilm.engine.native.blocks import Shape, Weights
from metafilm.film import FiLM, modulate, undisturbed

NORM_ACT = "timm.layers.norm_act.BatchNormAct2d"
SAME = "timm.layers.conv2d_same.Conv2dSame"


class _Kind(NamedTuple):
    """A class of inverted residual blocks: the modules that hold its layers in their order, the attribute
    that tells of a skip, and modules that must do nothing."""

    layers: tuple[str, ...]
    skip: str
    idle: tuple[str, ...] = ()


IDLE = ("conv_s2d", "aa", "se", "drop_path")
BLOCKS = {
    "timm.models._efficientnet_blocks.InvertedResidual": _Kind(
        ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"), "has_skip", IDLE
    ),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": _Kind(
        ("conv_dw", "bn1", "conv_pw", "bn2"), "has_skip", IDLE
    ),
    "torchvision.models.mobilenetv2.InvertedResidual": _Kind(("conv",), "use_res_connect"),
    "torchvision.models.mnasnet._InvertedResidual": _Kind(("layers",), "apply_residual"),
}


def quicken(network: nn.Module) -> nn.Module:
    """Give the layers that the engine knows their quicker ``forward``, in place."""
    for module in network.modules():
        if _name(module) in BLOCKS:
            module.forward = _Block(module)
        elif _name(module) == NORM_ACT:
            module.forward = _NormAct(module)
    return network


class _Quick:
    """A module's ``forward``. An object and no closure: a deep copy of the network gets one that points to
    the copied module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            x_cast = _cast(x)
            if native.fits(x_cast) and x.dim() == 4 and (found := self.quick(x_cast)) is not None:
                return found
        return type(self.module).forward(self.module, x)

    def quick(self, x: Tensor) -> Tensor | None:
        """The output, where the kernels can give it."""
        raise NotImplementedError


class _NormAct(_Quick):
    def quick(self, x: Tensor) -> Tensor | None:
        norm = _norm(self.module, None)
        if norm is None or norm.deviation is None or not _adapting(x, [norm]):
            return None
        bounds = norm.bounds
        pair = _batched(norm.deviation)
        if len(x) % len(pair[0]):
            return None

        def plain(x: Tensor, more: Tensor, bias: Tensor) -> Tensor:
            return _plain_norm(x, norm, (more, bias))

        return frozen.norm_act(x, _fixed(norm.module), pair, bounds, plain)


class _Block(_Quick):
    def quick(self, x: Tensor) -> Tensor | None:
        found = _block(self.module)
        if found is None or not _adapting(x, found.norms):
            return None
        convolutions, norms, skip = found
        if any(convolution.weight.requires_grad for convolution in convolutions):
            return None
        deviations = [_batched(norm.deviation) for norm in norms]
        tasks = {len(pair[0]) for pair in deviations if pair is not None}
        if len(tasks) > 1 or any(len(x) % count for count in tasks):
            return None
        depthwise = convolutions[-2]
        top, height = _extent(depthwise, 0, x.shape[2])
        left, width = _extent(depthwise, 1, x.shape[3])
        if depthwise.stride[0] == 1 and (height, width) != x.shape[2:]:
            return None
        if height < 1 or width < 1 or x.shape[1] != convolutions[0].weight.shape[1] * convolutions[0].groups:
            return None
        shape = Shape(
            channels=x.shape[1],
            inside=depthwise.out_channels,
            outputs=convolutions[-1].out_channels,
            side=depthwise.kernel_size[0],
            stride=depthwise.stride[0],
            top=top,
            left=left,
            rows=x.shape[2],
            columns=x.shape[3],
            height=height,
            width=width,
            expand=len(norms) == 3,
            skip=skip,
            bounds=(*norms[0].bounds, *norms[-2].bounds),
        )

        def plain(x: Tensor, *flat: Tensor) -> Tensor:
            y = x
            first = 3 - len(norms)
            for number, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True), first):
                y = _plain_convolution(convolution, y)
                y = _plain_norm(y, norm, (flat[2 * number], flat[2 * number + 1]))
            return y + x if skip else y

        fixed = [_fixed(norm.module) for norm in norms]
        none = [None] * (3 - len(norms))
        return frozen.inverted_residual(
            x,
            cast(Any, (*none, *fixed)),
            cast(Any, (*none, *deviations)),
            shape,
            _weights(self.module, convolutions),
            plain,
        )


class _Norm(NamedTuple):
    """A frozen norm, its deviations and the clamp behind it."""

    module: nn.BatchNorm2d
    deviation: Deviation
    bounds: tuple[float, float]


class _Layers(NamedTuple):
    convolutions: list[nn.Conv2d]
    norms: list[_Norm]
    skip: bool


def _block(module: nn.Module) -> _Layers | None:
    """The layers of an inverted residual block whose every part is one that the kernels know."""
    kind = BLOCKS[_name(module)]
    if any(not isinstance(getattr(module, name, None), nn.Identity | None) for name in kind.idle):
        return None
    layers = _flat([module.get_submodule(name) for name in kind.layers])
    convolutions: list[nn.Conv2d] = []
    norms: list[_Norm] = []
    while layers:
        convolution = layers.pop(0)
        if not _is_convolution(convolution) or not layers:
            return None
        follower = layers[1] if len(layers) > 1 and not isinstance(layers[1], nn.Conv2d) else None
        norm = _norm(layers.pop(0), follower)
        if norm is None:
            return None
        if follower is not None:
            layers.pop(0)
        convolutions.append(cast(nn.Conv2d, convolution))
        norms.append(norm)
    if len(norms) not in (2, 3) or norms[-1].bounds != (-math.inf, math.inf):
        return None
    *first, depthwise, last = convolutions
    square = depthwise.kernel_size in ((3, 3), (5, 5)) and depthwise.stride in ((1, 1), (2, 2))
    if not square or not depthwise.groups == depthwise.in_channels == depthwise.out_channels:
        return None
    if not all(_is_pointwise(convolution) for convolution in (*first, last)):
        return None
    if max(c.out_channels for c in convolutions) > native.MOST_CHANNELS:
        return None
    return _Layers(convolutions, norms, bool(getattr(module, kind.skip)))


def _flat(modules: list[nn.Module]) -> list[nn.Module]:
    """Containers in order replaced by what they hold; a container that somebody hooked into stays."""
    found: list[nn.Module] = []
    for module in modules:
        inner = isinstance(module, nn.Sequential) and undisturbed(module)
        found += _flat(list(module.children())) if inner else [module]
    return found


def _is_convolution(module: nn.Module) -> bool:
    known = type(module) is nn.Conv2d or _name(module) == SAME
    if not known or not undisturbed(module):
        return False
    convolution = cast(nn.Conv2d, module)
    plain = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return plain and convolution.bias is None and convolution.dilation == (1, 1)


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    ones = convolution.kernel_size == convolution.stride == (1, 1)
    return ones and convolution.padding == (0, 0) and convolution.groups == 1


def _norm(module: nn.Module, follower: nn.Module | None) -> _Norm | None:
    """A frozen batch norm in evaluation mode, and the clamp in it or behind it."""
    if type(module) is nn.BatchNorm2d:
        behind = [] if follower is None else [follower]
    elif _name(module) == NORM_ACT and follower is None:
        behind = [cast(nn.Module, module.drop), cast(nn.Module, module.act)]
    else:
        return None
    norm = cast(nn.BatchNorm2d, module)
    bounds = (-math.inf, math.inf)
    for activation in behind:
        bounds = _bounds(activation) if bounds == (-math.inf, math.inf) else None
        if bounds is None:
            return None
    statistics = (norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.weight, norm.bias)
    if norm.training or any(value is None or value.requires_grad for value in statistics):
        return None
    layer = getattr(norm, "film", None)
    mine = layer if isinstance(layer, FiLM) else None
    if not all(undisturbed(part, mine is not None) for part in (norm, *behind)):
        return None
    if mine is not None and (mine.varies_over_the_map or mine.delta_gamma.shape != mine.delta_beta.shape):
        return None  # the kernels read one gain and one bias per task and channel
    return _Norm(norm, None if mine is None else mine.deviations(), bounds)


def _bounds(activation: nn.Module) -> tuple[float, float] | None:
    if type(activation) is nn.Identity:
        return -math.inf, math.inf
    if type(activation) is nn.ReLU:
        return 0.0, math.inf
    if type(activation) in (nn.ReLU6, nn.Hardtanh):
        return float(cast(nn.Hardtanh, activation).min_val), float(cast(nn.Hardtanh, activation).max_val)
    return None


def _adapting(x: Tensor, norms: list[_Norm]) -> bool:
    """Whether a gradient is on its way to deviations through this layer, and all are float32."""
    values = [value for norm in norms for value in norm.deviation or ()]
    return all(value.dtype == torch.float32 for value in values) and (
        x.requires_grad or any(value.requires_grad for value in values)
    )


def _batched(deviation: Deviation) -> Any:
    """``[T, C]``, T = 1 for ``[C]``."""
    return deviation and tuple(v.unsqueeze(0) if v.dim() == 1 else v for v in deviation)


def _cast(x: Tensor) -> Tensor:
    """As autocast would hand it to a convolution, since it does not look into an autograd function."""
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def _extent(convolution: nn.Conv2d, axis: int, size: int) -> tuple[int, int]:
    """Padding before the maps, and the size of what comes out."""
    side, stride = convolution.kernel_size[axis], convolution.stride[axis]
    if _name(convolution) == SAME:
        out = math.ceil(size / stride)
        return max((out - 1) * stride + side - size, 0) // 2, out
    before = cast(tuple[int, ...], convolution.padding)[axis]
    return before, (size + 2 * before - side) // stride + 1


def _plain_convolution(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    top, height = _extent(convolution, 0, x.shape[2])
    left, width = _extent(convolution, 1, x.shape[3])
    side, stride = convolution.kernel_size, convolution.stride
    bottom = (height - 1) * stride[0] + side[0] - x.shape[2] - top
    right = (width - 1) * stride[1] + side[1] - x.shape[3] - left
    x = F.pad(x, (left, right, top, bottom))  # negative where no window reaches the last pixels
    return F.conv2d(x, convolution.weight.to(x.dtype), None, stride, groups=convolution.groups)


def _plain_norm(x: Tensor, norm: _Norm, deviation: tuple[Tensor, Tensor]) -> Tensor:
    layer = norm.module
    mean, var, weight, bias = layer.running_mean, layer.running_var, layer.weight, layer.bias
    y = F.batch_norm(x, mean, var, weight, bias, False, 0.0, layer.eps)
    if norm.deviation is not None:
        y = modulate(y, 1 + deviation[0], deviation[1])
    low, high = norm.bounds
    return y if (low, high) == (-math.inf, math.inf) else y.clamp(low, high)


# What is made of frozen weights once and kept for as long as they are: by module, with the versions it is of.
# A write through `.data` moves no version, and to compare values would cost more than is saved: none sees it.
_fixed_norms: WeakKeyDictionary[nn.Module, tuple[Any, Fixed]] = WeakKeyDictionary()
_packed: WeakKeyDictionary[nn.Module, tuple[Any, Weights]] = WeakKeyDictionary()


def _fixed(norm: nn.BatchNorm2d) -> Fixed:
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    # a pass in training mode moves the averages in native code, which leaves their versions: the count tells
    averages = norm.running_mean, norm.running_var, norm.num_batches_tracked
    found = _versions(*averages, norm.weight, norm.bias)
    kept = _fixed_norms.get(norm)
    if kept is None or kept[0] != found:
        with torch.no_grad():
            # in float64: this affine is all there is between two convolutions
            gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            shift = norm.bias.double() - norm.running_mean.double() * gain
            kept = _fixed_norms[norm] = found, Fixed(gain.float(), shift.float())
    return kept[1]


def _weights(module: nn.Module, convolutions: list[nn.Conv2d]) -> Weights:
    weights = [convolution.weight for convolution in convolutions]
    found = _versions(*weights)
    kept = _packed.get(module)
    if kept is None or kept[0] != found:
        first = weights[0] if len(weights) == 3 else None
        kept = _packed[module] = found, Weights.of(first, weights[-2], weights[-1])
    return kept[1]


def _versions(*values: Tensor) -> list[tuple[int, int]]:
    return [(value.data_ptr(), -1 if value.is_inference() else value._version) for value in values]


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
