"""Decoders: from the vector that tells of a task to the deviations of every site, ``[T, E]`` -> ``[T, ΣC]``.

Linear by default: FiLM's authors and BigGAN found no gain from more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LinearDecoder(nn.Module):
    """One linear map per site and kind; they read the same c, so they are one matrix. ``[T, E]`` ->
    ``[T, ΣC]``.
    """

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(sizes))

    def forward(self, code: Tensor) -> Tensor:
        return self.linear(code)


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


DECODERS: dict[str, type[nn.Module]] = {"linear": LinearDecoder, "mlp": MLPDecoder, "gru": GRUDecoder}
"""The decoders by name: command line, configuration and docs read this mapping and no other."""
