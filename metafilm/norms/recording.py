"""Running averages: recorded by the passes of a step, added up over processes, and moved once a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metafilm.norms.norm import Norm


def commit(network: nn.Module) -> None:
    """Move the running averages by the statistics recorded since the last call, their mean over tasks."""
    for module in network.modules():
        if isinstance(module, Norm) and module.recorded_tasks > 0:
            mean, var = module.recorded / module.recorded_tasks
            module.running_mean.lerp_(mean, module.momentum)
            module.running_var.lerp_(var, module.momentum)
            module.num_batches_tracked += 1
    discard(network)


def share(network: nn.Module, add: Callable[[Tensor], Tensor]) -> None:
    """Add up the statistics recorded since the last :func:`commit` over several processes; ``add`` sums a
    tensor over them."""
    layers = [module for module in network.modules() if isinstance(module, Norm) and module.mode == "running"]
    if not layers:
        return
    parts = [part.flatten() for layer in layers for part in (layer.recorded, layer.recorded_tasks)]
    sums = iter(add(torch.cat(parts)).split([part.numel() for part in parts]))
    for layer in layers:
        layer.recorded.copy_(next(sums).view_as(layer.recorded))
        layer.recorded_tasks.copy_(next(sums).squeeze(0))


def discard(network: nn.Module) -> None:
    """Forget the statistics recorded since the last :func:`commit`, as when a step was given up half-way."""
    for module in network.modules():
        if isinstance(module, Norm):
            module.recorded.zero_()
            module.recorded_tasks.zero_()
