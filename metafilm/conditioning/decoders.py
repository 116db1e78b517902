"""Decoders: from the vector that tells of a task to the deviations of every site, ``[T, E]`` -> ``[T, ΣC]``.

Linear by default: FiLM's authors and BigGAN found no gain from more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError


class LinearDecoder(nn.Module):
    """One linear map per site and kind; they read the same c, so they are one matrix. ``[T, E]`` ->
    ``[T, ΣC]``.
    """

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(sizes))

    def forward(self, code: Tensor) -> Tensor:
        return self.linear(code)


class TwoLayerDecoder(nn.Module):
    """One hidden layer of E units for all sites, then a linear map per site and kind."""

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.linear = nn.Linear(width, sum(sizes))

    def forward(self, code: Tensor) -> Tensor:
        return self.linear(F.silu(self.hidden(code)))


class MLPDecoder(nn.Module):
    """TADAM's three fully connected layers per site and kind, residual from the second (its section 3.2)."""

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.entry = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        self.middle = nn.ModuleList(nn.Linear(size, size) for size in sizes)
        self.exit = nn.ModuleList(nn.Linear(size, size) for size in sizes)

    def forward(self, code: Tensor) -> Tensor:
        outputs = []
        for entry, middle, exit_ in zip(self.entry, self.middle, self.exit, strict=True):
            h = F.silu(entry(code))
            outputs.append(exit_(F.silu(h + middle(h))))
        return torch.cat(outputs, -1)


class GRUDecoder(nn.Module):
    """A gated recurrent unit that steps from site to site, c its first state (the FiLM retrospective's first
    attempt).
    """

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(len(sizes), width) / width**0.5)
        self.cell = nn.GRUCell(width, width)
        self.readout = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, code: Tensor) -> Tensor:
        outputs = []
        for step, readout in enumerate(self.readout):
            code = self.cell(self.embedding[step].expand_as(code), code)
            outputs.append(readout(code))
        return torch.cat(outputs, -1)


class CodebookDecoder(nn.Module):
    """M learned sets of deviations, mixed by a soft-max of c: FLUTE's blender (Triantafillou et al., ICML
    2021, arXiv:2105.07029, section 3), whose sets are templates of the domains. What it gives lies between
    the M sets, so it can't go far astray in a domain that it never saw.
    """

    def __init__(self, width: int, sizes: list[int], codes: int = 8) -> None:
        super().__init__()
        if codes < 1:
            raise MetafilmError(f"a codebook of {codes} codes; it needs at least 1")
        self.blend = nn.Linear(width, codes)
        self.codes = nn.Parameter(torch.randn(codes, sum(sizes)))

    def forward(self, code: Tensor) -> Tensor:
        return self.blend(code).softmax(-1) @ self.codes


DECODERS: dict[str, type[nn.Module]] = {
    "linear": LinearDecoder,
    "mlp2": TwoLayerDecoder,
    "mlp": MLPDecoder,
    "gru": GRUDecoder,
    "codebook": CodebookDecoder,
}
"""The decoders by name: command line, configuration and docs read this mapping and no other."""
