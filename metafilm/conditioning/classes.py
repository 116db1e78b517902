"""A class as the condition: what is to be generated, a style, an instrument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metafilm import film
from metafilm.conditioning.condition import ConditionNetwork
from metafilm.engine.device import readable
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict


class ClassTable(nn.Module):
    """A row of deviations per class and nothing else: conditional instance normalisation (Dumoulin et al.,
    ICLR 2017, arXiv:1610.07629). Zero at the start.

    Args:
        classes: how many rows.
        sites: site name -> features C (:func:`metafilm.film.sites`).

    Raises:
        MetafilmError: no sites, or no classes.
    """

    def __init__(self, classes: int, sites: Mapping[str, int]) -> None:
        super().__init__()
        if not sites or classes < 1:
            raise MetafilmError(
                f"a class table of {classes} classes and {len(sites)} FiLM sites; it needs some of each"
            )
        self.classes = classes
        self.names = [name for site in sites for name in film.names(site)]
        self.rows = nn.ParameterList(
            nn.Parameter(torch.zeros(classes, size)) for size in sites.values() for _ in range(2)
        )

    def forward(self, labels: Tensor) -> FilmDict:
        """``[B]`` int64 classes, or ``[B, classes]`` floats by which rows are mixed -> deviations, ``[B, C]``
        each."""
        rows = (pick(row, labels, self.classes) for row in self.rows)
        return dict(zip(self.names, rows, strict=True))


class ClassEncoder(ConditionNetwork):
    """A vector per class, decoded to deviations: BigGAN's class-conditional batch norm (Brock et al., ICLR
    2019, arXiv:1809.11096), whose classes share one vector for all sites and have a linear map per site.

    Args:
        classes: how many there are.
        sites: site name -> features C (:func:`metafilm.film.sites`).
        width: size of a class's vector, which is c.
        generation: as :meth:`ConditionNetwork.generate` takes it: ``decoder``, ``modulation``, ``maps`` ...

    Raises:
        MetafilmError: no classes, or what :meth:`ConditionNetwork.generate` refuses.
    """

    kind = "class encoder"

    def __init__(self, classes: int, sites: Mapping[str, int], width: int = 128, **generation: Any) -> None:
        super().__init__()
        if classes < 1:
            raise MetafilmError(f"a class encoder of {classes} classes; it needs at least 1")
        self.classes = classes
        self.vectors = nn.Parameter(torch.randn(classes, width))
        self.generate(sites, width, **generation)

    def encode(self, labels: Tensor) -> Tensor:
        """``[B]`` int64 classes, or ``[B, classes]`` floats that mix their vectors -> c ``[B, width]``."""
        return pick(self.vectors, labels, self.classes)

    def forward(self, labels: Tensor) -> FilmDict:
        """As :meth:`encode` takes them -> deviations, ``[B, C]`` each."""
        return self.decode(self.encode(labels))


def pick(table: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Rows of ``[classes, C]``, or mixtures of them: ``[B, C]``.

    Raises:
        MetafilmError: labels of another shape or type, or of no class.
    """
    if labels.is_floating_point():
        if labels.dim() != 2 or labels.shape[1] != classes:
            raise MetafilmError(
                f"weights of classes have shape {tuple(labels.shape)}, expected [examples, {classes}]"
            )
        return labels.to(table.dtype) @ table
    if labels.dim() != 1 or labels.dtype != torch.int64:
        raise MetafilmError(
            f"classes have shape {tuple(labels.shape)} and type {labels.dtype}, expected [examples] "
            "torch.int64, or [examples, classes] floats for mixtures"
        )
    if readable(labels) and len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise MetafilmError(
            f"classes {int(labels.min())} to {int(labels.max())} of {classes}; number them from 0"
        )
    return table[labels]
