"""A multi-layer perceptron for regression tasks (Finn et al. 2017 use 40-40 for sinusoids)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU after each; FiLM acts on the scalar pre-activations.

    Args:
        in_features: size of the input vectors.
        hidden: widths of the hidden layers; the last is the output.

    ``[B, in_features]`` in, ``[B, hidden[-1]]`` out.
    """

    def __init__(self, in_features: int, hidden: tuple[int, ...] = (40, 40)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((in_features, *hidden)))
        self.out_features = hidden[-1]
        self.film_sites = tuple(f"layers.{i}" for i in range(len(hidden)))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x
