"""The norms of a whole network: their mode, and exchanging PyTorch's own layers for ours or back."""

from __future__ import annotations

import torch
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
    for parent in list(network.modules()):
        if type(parent) is Conv2d:
            parent.__class__ = nn.Conv2d  # type: ignore[assignment]
        for name, child in list(parent.named_children()):
            if isinstance(child, Norm):
                setattr(parent, name, _plain_layer(child))
    return network


def _plain_layer(norm: Norm) -> nn.Module:
    like = {"device": norm.weight.device, "dtype": norm.weight.dtype}
    if norm.mode == "group":
        layer: nn.GroupNorm | nn.BatchNorm2d = nn.GroupNorm(norm.groups, norm.num_features, norm.eps, **like)
    else:
        layer = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, **like)
        layer.running_mean, layer.running_var = norm.running_mean.clone(), norm.running_var.clone()
    with torch.no_grad():
        layer.weight.copy_(norm.weight)
        layer.bias.copy_(norm.bias)
    return layer.train(norm.training)


def convert(network: nn.Module, mode: str = "running") -> nn.Module:
    """Replace each ``nn.BatchNorm2d`` by a :class:`Norm` of the same weights and averages, in place.

    So a network of somebody else's making normalises task by task while it trains. Do it before
    :func:`metafilm.film.insert`. Names stay as they are, so its checkpoints still load.

    Args:
        mode: of the new layers.

    Raises:
        MetafilmError: a layer without averages or affine, or one that has a FiLM layer already.
    """
    for parent_name, parent in list(network.named_modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                site = f"{parent_name}.{name}" if parent_name else name
                setattr(parent, name, _converted(site, child, mode))
    return network


def _converted(site: str, layer: nn.BatchNorm2d, mode: str) -> Norm:
    problem = None
    if hasattr(layer, "film"):
        problem = "has a FiLM layer already; convert a network before film.insert"
    elif not layer.affine or layer.running_mean is None:
        problem = "has no affine or no running averages; give it affine=True and track_running_stats=True"
    if problem:
        raise MetafilmError(f"norm {site!r} can't be converted: it {problem}")
    momentum = 0.1 if layer.momentum is None else layer.momentum
    norm = Norm(layer.num_features, mode, eps=layer.eps, momentum=momentum)
    norm.to(layer.weight.device, layer.weight.dtype)
    norm.load_state_dict(layer.state_dict())
    return norm.train(layer.training)


def foreign(network: nn.Module) -> list[nn.Module]:
    """Norms of PyTorch's own that keep averages: in training mode they would normalise by the whole batch,
    all its tasks together, and move their averages in every pass."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [module for module in network.modules() if isinstance(module, kinds)]
