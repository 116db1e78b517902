"""A task's network as ordinary layers, without anything of FiLM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metafilm import film, norms
from metafilm.learner.copies import Averaged, looks_at_queries
from metafilm.learner.network import SharedNetwork


class Normalise(nn.Module):
    """``(x - mean) / std`` per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def plain_network(
    learner: SharedNetwork,
    deviations: dict[str, Tensor],
    state: dict[str, Tensor],
    statistics: dict[str, Tensor],
) -> nn.Module:
    """Normalisation, folded backbone and head in one; arguments as the attributes of
    :class:`metafilm.learner.task.Task`. In eval mode, without gradients.

    Raises:
        MetafilmError: a FiLM site that can't be folded.
    """
    backbone = film.fold(learner.backbone, deviations)
    with torch.no_grad():
        for name, module in backbone.named_modules():
            if isinstance(module, norms.Norm) and name in statistics:
                module.running_mean.copy_(statistics[name][0])
                module.running_var.copy_(statistics[name][1])
    layers = (
        Normalise(learner.mean, learner.std),
        norms.plain(backbone),
        learner.head.plain_with_transform(state),
    )
    network = nn.Sequential(*layers)
    count = looks_at_queries(learner)
    whole = network if count == 1 else Averaged(network, count, learner.copy_augment)
    return whole.requires_grad_(False).eval()
