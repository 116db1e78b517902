"""The FiLM layer: δγ and δβ of one site, and what they do to feature maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metafilm.errors import MetafilmError

FilmDict = dict[str, Tensor]
"""Parameter name -> deviations, ``[C]`` or ``[T, C]``."""

GAIN, BIAS = "delta_gamma", "delta_beta"


class FiLM(nn.Module):
    """The deviations of one site.

    Args:
        features: C, how many feature maps (channels) the site has.
        channel_dim: the input's dimension that holds them: 1 for ``[B, C]``, ``[B, C, L]`` and
            ``[B, C, H, W]``; -1 for sequences ``[B, L, C]``.
    """

    def __init__(self, features: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.features = features
        self.channel_dim = channel_dim
        self.delta_gamma = nn.Parameter(torch.zeros(features))
        self.delta_beta = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: ``[T·n, ...]`` with T the tasks of the deviations (1 when they are ``[C]``); the shape is
        kept.
        """
        return modulate(x, 1 + self.delta_gamma, self.delta_beta, self.channel_dim)

    def affine(self, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """The norm's own affine followed by this layer, as one affine: ``[C]`` or ``[T, C]`` each."""
        gain, shift = 1 + self.delta_gamma, self.delta_beta
        if weight is not None and bias is not None:
            # `bias * gain + 0` and `weight * 1` are exact, so δ = 0 is the plain network bit for bit
            gain, shift = weight * gain, bias * gain + shift
        return gain, shift

    def extra_repr(self) -> str:
        return f"{self.features}, channel_dim={self.channel_dim}"

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        # a checkpoint of the plain network has no deviations: it means δ = 0
        for name in (GAIN, BIAS):
            state_dict.setdefault(prefix + name, torch.zeros_like(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, *args)


def modulate(x: Tensor, gain: Tensor, shift: Tensor, channel_dim: int = 1) -> Tensor:
    """``gain ⊙ x + shift`` per channel and task.

    Args:
        x: ``[T·n, ...]``, the n rows of a task contiguous.
        gain, shift: ``[C]`` (one task) or ``[T, C]``.
        channel_dim: which dimension of ``x`` holds the C channels.

    Raises:
        MetafilmError: the rows do not divide into T tasks.
    """
    channel_dim = channel_dim % x.dim()
    if gain.dim() == 1:
        shape = [1] * x.dim()
        shape[channel_dim] = gain.shape[0]
        return torch.addcmul(shift.view(shape).to(x.dtype), x, gain.view(shape).to(x.dtype))
    tasks, features = gain.shape
    if x.shape[0] % tasks:
        raise MetafilmError(
            f"{x.shape[0]} rows can't be shared evenly by {tasks} tasks; give every task the same "
            "number of rows"
        )
    shape = [tasks, 1] + [1] * (x.dim() - 1)
    shape[channel_dim + 1] = features
    y = x.unflatten(0, (tasks, -1))
    return torch.addcmul(shift.view(shape).to(x.dtype), y, gain.view(shape).to(x.dtype)).flatten(0, 1)
