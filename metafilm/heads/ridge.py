"""Ridge regression on one-hot labels, fitted to each task in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError
from metafilm.heads.base import Head, State, solvable


class RidgeHead(Head):
    """Ridge regression on one-hot labels in closed form (R2-D2: Bertinetto et al., ICLR 2019,
    arXiv:1805.08136) by the Woodbury identity: an S×S system, however wide the features. λ and scale are
    learned."""

    retired = ("offset",)  # had no effect under a soft-max; files from before still hold it

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise MetafilmError(f"head scale {scale} must be positive")
        self.arguments = {"scale": scale}
        self.log_lambda = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @classmethod
    def build(cls, in_features: int, ways: int, scale: float) -> Head:
        return cls(scale)

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        # scaled to unit mean square norm, so that λ means the same at any width
        x = solvable(features)
        size = x.square().sum(-1).mean(1, keepdim=True).clamp(min=1e-12).rsqrt().unsqueeze(-1)
        x = x * size
        targets = F.one_hot(labels, ways).to(x.dtype)
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        gram = x @ x.transpose(1, 2) + self.log_lambda.exp() * eye
        weight = x.transpose(1, 2) @ torch.linalg.solve(gram, targets)  # [T, D, ways]
        return {
            "weight": (self.log_scale.exp() * (weight * size).transpose(1, 2)).to(features.dtype),
            "bias": features.new_zeros(x.shape[0], ways),
        }

    def predict(self, state: State, features: Tensor) -> Tensor:
        return features @ state["weight"].transpose(1, 2) + state["bias"].unsqueeze(1)
