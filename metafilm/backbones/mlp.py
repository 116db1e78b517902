"""A multi-layer perceptron for regression tasks (Finn et al. 2017 use 40-40 for sinusoids)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


class MLP(nn.Module):
    """Linear layers with an activation after each; FiLM acts on the scalar pre-activations.

    Args:
        in_features: size of the input vectors.
        hidden: widths of the hidden layers; the last is the output.
        activation: ``relu`` (Finn et al.), ``tanh`` or ``silu``.

    ``[B, in_features]`` in, ``[B, hidden[-1]]`` out.
    """

    def __init__(
        self, in_features: int, hidden: tuple[int, ...] = (40, 40), activation: str = "relu"
    ) -> None:
        super().__init__()
        self.arguments = {"in_features": in_features, "hidden": list(hidden), "activation": activation}
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((in_features, *hidden)))
        self.activation = ACTIVATIONS[activation]()
        self.out_features = hidden[-1]
        self.film_sites = tuple(f"layers.{i}" for i in range(len(hidden)))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))
        return x
