"""The norms of a whole network: their mode, and exchanging PyTorch's own layers for ours or back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import cast

from torch import nn

from metafilm.engine.convolution import Conv2d
from metafilm.errors import MetafilmError
from metafilm.norms.norm import Norm


def mode_of(network: nn.Module) -> str:
    """The network's norm mode: of its :class:`Norm` layers, ``running`` for other networks in eval mode.

    Raises:
        MetafilmError: layers of several modes, or a layer of PyTorch's own that has no running averages and
            so normalises by whatever stands in the batch, other tasks and queries too.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise MetafilmError(
                f"norm {name!r} ({type(module).__name__}) has no running averages, so every image of a batch "
                f"sees every other; give it track_running_stats=True, or use metafilm.norms.Norm"
            )
    modes = {module.mode for module in network.modules() if isinstance(module, Norm)}
    if len(modes) > 1:
        raise MetafilmError(f"the network's norms have several modes: {', '.join(sorted(modes))}; use one")
    return modes.pop() if modes else "running"


def plain(network: nn.Module) -> nn.Module:
    """Replace each :class:`Norm` and each of our convolutions by PyTorch's own layer, in place.

    ``support`` and ``transductive`` layers become ``nn.BatchNorm2d`` with the statistics in their buffers, so
    capture a task's first (:class:`Layout`).
    """
    for module in network.modules():
        if type(module) is Conv2d:
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    found = [module for module in network.modules() if isinstance(module, Norm)]
    return _exchanged(network, {module: _plain_layer(module) for module in found})


def _exchanged(network: nn.Module, layers: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The network with other layers wherever it has these, under every name."""
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in layers:
                parent._modules[name] = layers[child]
    return network


def _plain_layer(norm: Norm) -> nn.Module:
    like = {"device": norm.weight.device, "dtype": norm.weight.dtype}
    if norm.mode == "group":
        layer: nn.GroupNorm | nn.BatchNorm2d = nn.GroupNorm(norm.groups, norm.num_features, norm.eps, **like)
    else:
        layer = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, **like)
        layer.running_mean, layer.running_var = norm.running_mean, norm.running_var
        layer.num_batches_tracked = norm.num_batches_tracked
    layer.weight, layer.bias = norm.weight, norm.bias
    return layer.train(norm.training)


def convert(network: nn.Module, mode: str = "running") -> nn.Module:
    """Replace each ``nn.BatchNorm2d`` by a :class:`Norm` of the same weights and averages, in place.

    So a network of somebody else's making normalises task by task while it trains. Do it before
    :func:`metafilm.film.insert`. Names stay as they are, so its checkpoints still load.

    Args:
        mode: of the new layers.

    Raises:
        MetafilmError: a layer without averages, affine or momentum, or one that has a FiLM layer already; the
            network is then as it was.
    """
    found = [(name, module) for name, module in network.named_modules() if type(module) is nn.BatchNorm2d]
    return _exchanged(network, {module: _converted(name, module, mode) for name, module in found})


def _converted(site: str, layer: nn.BatchNorm2d, mode: str) -> Norm:
    problem = None
    if hasattr(layer, "film"):
        problem = "has a FiLM layer already; convert a network before film.insert"
    elif not layer.affine or layer.running_mean is None or layer.running_var is None:
        problem = "has no affine or no running averages; give it affine=True and track_running_stats=True"
    elif layer.momentum is None or layer.num_batches_tracked is None:
        problem = "averages over all batches alike; give it a momentum, such as 0.1"
    if problem:
        raise MetafilmError(f"norm {site!r} can't be converted: it {problem}")
    norm = Norm(layer.num_features, mode, eps=layer.eps, momentum=cast(float, layer.momentum))
    norm.to(layer.weight.device, layer.weight.dtype)
    for name, value in chain(layer.named_parameters(), layer.named_buffers()):
        setattr(norm, name, value)  # the very same: frozen ones stay so, and an optimiser keeps what it has
    return norm.train(layer.training)


def foreign(network: nn.Module) -> list[nn.Module]:
    """Norms of PyTorch's own that keep averages: in training mode they would normalise by the whole batch,
    all its tasks together, and move their averages in every pass."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [module for module in network.modules() if isinstance(module, kinds)]
