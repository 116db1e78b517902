"""A task's network as ordinary layers, without anything of FiLM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm import film, norms
from metafilm.heads import CosineHead, PrototypeHead

if TYPE_CHECKING:
    from metafilm.learner.learner import MetaFiLM


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


class CosineClassifier(nn.Module):
    """Scaled cosine similarity to fixed class vectors, ``[B, D]`` -> ``[B, ways]``."""

    def __init__(self, prototypes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(scale * F.normalize(prototypes, dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=-1), self.weight)


def plain_network(
    learner: MetaFiLM, deviations: dict[str, Tensor], state: dict[str, Tensor], statistics: dict[str, Tensor]
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
    layers = (Normalise(learner.mean, learner.std), norms.plain(backbone), plain_head(learner.head, state))
    return nn.Sequential(*layers).requires_grad_(False).eval()


def plain_head(head: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The fitted head as one layer, features ``[B, D]`` -> logits ``[B, ways]`` (regression: values)."""
    if isinstance(head, CosineHead):
        return CosineClassifier(state["prototypes"][0].detach(), head.log_scale.detach().exp())
    if isinstance(head, PrototypeHead):
        # the squared distance is linear in the query, up to a term that all classes share
        scale, points = head.log_scale.detach().exp(), state["prototypes"][0].detach()
        weight, bias = 2 * scale * points, -scale * points.square().sum(-1)
    else:
        weight, bias = state["weight"][0].detach(), state["bias"][0].detach()
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    linear.weight, linear.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return linear
