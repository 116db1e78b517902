"""How well a class's cells rebuild a query's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.heads.base import State, solvable
from metafilm.heads.local import LocalHead, unflattened


class ReconstructionHead(LocalHead):
    """Ridge regression of a query's cells on all cells of a class's support; logits are minus the mean
    squared error, times a learned scale (FRN: Wertheimer et al., CVPR 2021, arXiv:2012.01506).

    With S the class's cells ``[k · cells, d]``, a query's cells Q are rebuilt as ρ Q (SᵀS + λI)⁻¹ SᵀS, where
    λ = e^α k · cells / d and ρ = e^β, α and β learned: by Woodbury's identity a d×d system, however many
    cells. What is left over is then Q times (1 − ρ) I + ρ λ (SᵀS + λI)⁻¹, all that a task keeps of a class.
    Cells are scaled to a mean square length of 1 over the task's support, so that α and the scale mean the
    same for any network.
    """

    def __init__(self, features: int, scale: float = 10.0, cells: int = 1) -> None:
        super().__init__(features, scale, cells)
        self.log_lambda = nn.Parameter(torch.zeros(()))
        self.log_rho = nn.Parameter(torch.zeros(()))

    @staticmethod
    def first_scale(in_features: int) -> float:
        return 10.0

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        cells, size = self._sized(features)
        member = F.one_hot(labels, ways).to(cells.dtype)  # [T, S, ways]
        residual = self._residual(_grams(cells, member), member.sum(1), cells.shape[2])
        return {"residual": (size * residual).to(features.dtype)}

    def _sized(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Support cells ``[T, S, cells, d]`` of mean square length 1 in each task, and the factor ``[T, 1, 1,
        1]`` that makes them so."""
        cells = self.cells(solvable(features))
        size = cells.square().sum(-1).mean((1, 2)).clamp(min=1e-12).rsqrt()[:, None, None, None]
        return cells * size, size

    def _residual(self, grams: Tensor, counts: Tensor, cells: int) -> Tensor:
        """:func:`residual_map` of classes of so many images ``[...]``, each of so many cells."""
        weight = counts * (cells / self.channels) * self.log_lambda.exp()
        return residual_map(grams, weight, self.log_rho.exp())

    def state_shapes(self, ways: int, features: int | None) -> dict[str, tuple[int | None, ...]]:
        return {"residual": (ways, self.channels, self.channels)}

    def predict(self, state: State, features: Tensor) -> Tensor:
        return -self.log_scale.exp() * error(self.cells(features), state["residual"])

    def own(self, features: Tensor, labels: Tensor, ways: int, scored: Tensor) -> Tensor:
        cells, size = self._sized(features)
        member = F.one_hot(labels, ways).to(cells.dtype)
        counts = member.sum(1).gather(1, labels)  # [T, S] of its class
        several = counts > 1
        of_class = _grams(cells, member)[torch.arange(len(labels), device=labels.device)[:, None], labels]
        others = of_class - cells.transpose(2, 3) @ cells  # [T, S, d, d]
        others = torch.where(several[..., None, None], others, of_class)
        residual = size * self._residual(others, torch.where(several, counts - 1, counts), cells.shape[2])
        residual = residual.to(scored.dtype)
        copies = self.cells(scored).unflatten(1, (-1, labels.shape[1]))  # [T, V, S, cells, d]
        left = (copies @ residual.unsqueeze(1)).square().sum(-1).mean(-1)
        return -self.log_scale.exp() * left.flatten(1)

    def plain(self, state: State) -> nn.Module:
        return ReconstructionClassifier(state["residual"], self.log_scale.detach().exp())


def residual_map(grams: Tensor, weight: Tensor, rho: Tensor | float = 1.0) -> Tensor:
    """What a class doesn't rebuild, as a map of cells: SᵀS ``[..., d, d]``, λ ``[...]`` and ρ -> ``[..., d,
    d]``."""
    eye = torch.eye(grams.shape[-1], dtype=grams.dtype, device=grams.device)
    weight = weight[..., None, None]
    return (1 - rho) * eye + rho * weight * torch.linalg.inv(grams + weight * eye)


def _grams(cells: Tensor, member: Tensor) -> Tensor:
    """SᵀS of each class, ``[T, S, cells, d]`` and ``[T, S, ways]`` -> ``[T, ways, d, d]``."""
    if by_images(cells, member.shape[2]):
        each = cells.transpose(2, 3) @ cells
        return (member.transpose(1, 2) @ each.flatten(2)).unflatten(-1, each.shape[2:])
    flat = cells.flatten(1, 2)  # [T, S·cells, d]
    weights = member.repeat_interleave(cells.shape[2], 1)  # [T, S·cells, ways]
    found = [(flat * weights[..., c : c + 1]).transpose(1, 2) @ flat for c in range(member.shape[2])]
    return torch.stack(found, 1)


def by_images(cells: Tensor, ways: int) -> bool:
    """Whether a d×d matrix of each image is smaller than its cells in the maps of all classes."""
    return cells.shape[3] <= ways * cells.shape[2]


def error(cells: Tensor, residual: Tensor) -> Tensor:
    """The mean over a query's cells of the squared length of what is left: ``[T, Q, cells, d]``, ``[T, ways,
    d, d]`` -> ``[T, Q, ways]``.

    Σ ‖q R‖² over the rows q of Q is ⟨QᵀQ, R Rᵀ⟩: with many classes one product of d² numbers for each pair of
    query and class, instead of cells · d².
    """
    if by_images(cells, residual.shape[1]):
        grams = (cells.transpose(2, 3) @ cells).flatten(2)  # [T, Q, d·d]
        squares = (residual @ residual.transpose(2, 3)).flatten(2)  # [T, ways, d·d]
        return grams @ squares.transpose(1, 2) / cells.shape[2]
    left = cells.flatten(1, 2).unsqueeze(1) @ residual  # [T, ways, Q·cells, d]
    return left.square().sum(-1).unflatten(-1, (-1, cells.shape[2])).mean(-1).transpose(1, 2)


class ReconstructionClassifier(nn.Module):
    """One task's classes, features ``[B, d · cells]`` -> logits ``[B, ways]``."""

    residual: Tensor
    scale: Tensor

    def __init__(self, residual: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("residual", residual.detach().clone())
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        cells = unflattened(x, self.residual.shape[-1]).unsqueeze(0)
        return -self.scale * error(cells, self.residual)[0]
