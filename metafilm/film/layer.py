"""The FiLM layer: δγ and δβ of one site, and what they do to feature maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metafilm.errors import MetafilmError
from metafilm.film.recomputing import refuse_recomputation

FilmDict = dict[str, Tensor]
"""Parameter name -> deviations: ``[C]`` or ``[T, C]``, or ``[T, C, H, W]`` and ``[T, C, L]`` where they vary
over the map."""

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
        gain, shift = self.deviations()
        return modulate(x, 1 + gain, shift, self.channel_dim)

    def deviations(self) -> tuple[Tensor, Tensor]:
        """δγ and δβ to run with.

        Raises:
            MetafilmError: in a checkpoint within :func:`metafilm.film.call`
                (:mod:`metafilm.film.recomputing`).
        """
        refuse_recomputation(self)
        return self.delta_gamma, self.delta_beta

    def affine(self, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """The norm's own affine followed by this layer, as one affine: ``[C]`` or ``[T, C]`` each.

        Raises:
            MetafilmError: deviations that vary over the map, which no affine of a norm can hold.
        """
        if self.varies_over_the_map:
            shapes = f"{tuple(self.delta_gamma.shape)} and {tuple(self.delta_beta.shape)}"
            raise MetafilmError(f"deviations {shapes} vary over the map: apply them to the maps, by modulate")
        gain, shift = self.deviations()
        gain = 1 + gain
        if weight is not None and bias is not None:
            # `bias * gain + 0` and `weight * 1` are exact, so δ = 0 is the plain network bit for bit
            gain, shift = weight * gain, bias * gain + shift
        if gain.dim() != shift.dim():  # only one of the two was given for T tasks
            gain, shift = torch.broadcast_tensors(gain, shift)
        return gain, shift

    @property
    def varies_over_the_map(self) -> bool:
        """Whether the deviations in use are ``[T, C, H, W]`` or ``[T, C, L]``."""
        return max(self.delta_gamma.dim(), self.delta_beta.dim()) > 2

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
        gain, shift: ``[C]`` (one task), ``[T, C]``, or with the map's sizes (each its own or 1) behind the
            channels wherever ``x`` holds those: ``[T, C, H, W]``, ``[T, C, L]``. The two may differ in that.
        channel_dim: which dimension of ``x`` holds the C channels.

    Raises:
        MetafilmError: the rows do not divide into T tasks, or the sizes are not those of the maps.
    """
    channel_dim = channel_dim % x.dim()
    if gain.dim() == 1 and shift.dim() == 1:
        shape = [1] * x.dim()
        shape[channel_dim] = gain.shape[0]
        return torch.addcmul(shift.view(shape).to(x.dtype), x, gain.view(shape).to(x.dtype))
    tasks = max(len(value) if value.dim() > 1 else 1 for value in (gain, shift))
    if x.shape[0] % tasks:
        raise MetafilmError(
            f"{x.shape[0]} rows can't be shared evenly by {tasks} tasks; give every task the same "
            "number of rows"
        )
    y = x.unflatten(0, (tasks, -1))
    gain, shift = (_spread(value, x, channel_dim).to(x.dtype) for value in (gain, shift))
    return torch.addcmul(shift, y, gain).flatten(0, 1)


def _spread(value: Tensor, x: Tensor, channel_dim: int) -> Tensor:
    """Deviations as they multiply ``[T, n, ...]``: ``[T, 1, ...]``, the channels where ``x`` has them."""
    if value.dim() == 1:
        value = value.unsqueeze(0)
    if value.dim() == 2:
        shape = [len(value), 1] + [1] * (x.dim() - 1)
        shape[channel_dim + 1] = value.shape[1]
        return value.view(shape)
    placed = value.movedim(1, channel_dim) if value.dim() == x.dim() else None
    fits = placed is not None and all(
        own in (1, size) for own, size in zip(placed.shape[1:], x.shape[1:], strict=True)
    )
    if placed is None or not fits:
        size = [s for i, s in enumerate(x.shape) if i not in (0, channel_dim)]
        expected = ", ".join(map(str, ["T", x.shape[channel_dim], *size]))
        raise MetafilmError(
            f"deviations over the map have shape {tuple(value.shape)}, the site puts out maps for "
            f"({expected}); give every size behind the channels as the site's, or 1"
        )
    return placed.unsqueeze(1)
