"""A vector as the condition: a time, properties, somebody else's embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metafilm.conditioning.condition import ConditionNetwork
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict


class VectorEncoder(ConditionNetwork):
    """Numbers -> deviations, through a few layers.

    Args:
        in_features: how many numbers.
        sites: site name -> features C (:func:`metafilm.film.sites`).
        width: size of c.
        depth: layers from the numbers to c; 0: the numbers are c.
        generation: as :meth:`ConditionNetwork.generate` takes it: ``decoder``, ``modulation``, ``maps`` ...

    Raises:
        MetafilmError: what :meth:`ConditionNetwork.generate` refuses.
    """

    kind = "vector encoder"

    def __init__(
        self, in_features: int, sites: Mapping[str, int], width: int = 64, depth: int = 1, **generation: Any
    ) -> None:
        super().__init__()
        self.in_features = in_features
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(in_features if i == 0 else width, width), nn.SiLU()]
        self.embed = nn.Sequential(*layers)
        self.generate(sites, width if depth else in_features, **generation)

    def encode(self, numbers: Tensor) -> Tensor:
        """``[B, in_features]`` -> c ``[B, width]``. Raises MetafilmError: another shape."""
        if numbers.dim() != 2 or numbers.shape[1] != self.in_features:
            raise MetafilmError(
                f"the condition has shape {tuple(numbers.shape)}, expected [examples, {self.in_features}]"
            )
        return self.embed(numbers)

    def forward(self, numbers: Tensor) -> FilmDict:
        """``[B, in_features]`` -> deviations, ``[B, C]`` each."""
        return self.decode(self.encode(numbers))


def sinusoid(time: Tensor, size: int, period: float = 10_000.0) -> Tensor:
    """A time as a vector that tells near times apart and far ones too: ``[B]`` -> ``[B, size]``, the cosines
    and sines of ``size / 2`` frequencies from 1 down to ``1 / period`` (Vaswani et al., NeurIPS 2017).

    Raises:
        MetafilmError: an odd size.
    """
    if size < 2 or size % 2:
        raise MetafilmError(f"a sinusoid of size {size}; it needs pairs, an even size from 2")
    half = torch.arange(size // 2, dtype=time.dtype, device=time.device)
    angles = time[:, None] * torch.exp(-math.log(period) * half / max(size // 2 - 1, 1))
    return torch.cat((angles.cos(), angles.sin()), 1)
