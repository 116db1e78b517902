"""Image to class by the nearest local descriptors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.heads.base import State
from metafilm.heads.local import LocalHead, unflattened

NEAREST = 3


class DescriptorsHead(LocalHead):
    """Each cell of a query against the cells of a class's support: the mean over the query's cells of the
    mean cosine to the k nearest of them, times a learned scale (DN4: Li et al., CVPR 2019, arXiv:1903.12290,
    with means for its sums, so that a scale means the same for any size of the maps).

    Args:
        features, scale, cells: as :class:`metafilm.heads.local.LocalHead`.
        nearest: k; of a class with fewer cells all.
    """

    def __init__(self, features: int, scale: float = 30.0, cells: int = 1, nearest: int = NEAREST) -> None:
        super().__init__(features, scale, cells)
        self.arguments["nearest"] = nearest
        self.nearest = nearest

    @staticmethod
    def first_scale(in_features: int) -> float:
        return 30.0

    def fit(self, features: Tensor, labels: Tensor, ways: int) -> State:
        descriptors = F.normalize(self.cells(features), dim=-1)  # [T, S, cells, d]
        tasks, _, cells, _ = descriptors.shape
        member = F.one_hot(labels, ways)  # [T, S, ways]
        rank = (member.cumsum(1) - 1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # [T, S] within its class
        most = int(member.sum(1).max())
        place = (torch.arange(tasks, device=labels.device).unsqueeze(1), labels, rank)
        # classes of fewer images than the largest are filled up, and what is there is marked
        room = descriptors.new_zeros(tasks, ways, most, *descriptors.shape[2:])
        there = descriptors.new_zeros(tasks, ways, most)
        there = there.index_put(place, torch.ones_like(rank, dtype=there.dtype))
        return {
            "descriptors": room.index_put(place, descriptors).flatten(2, 3),
            "present": there.repeat_interleave(cells, 2),
        }

    def state_shapes(self, ways: int, features: int | None) -> dict[str, tuple[int | None, ...]]:
        return {"descriptors": (ways, None, self.channels), "present": (ways, None)}

    def predict(self, state: State, features: Tensor) -> Tensor:
        cells = self.cells(features)
        return self.log_scale.exp() * similarity(cells, state["descriptors"], state["present"], self.nearest)

    def own(self, features: Tensor, labels: Tensor, ways: int, scored: Tensor) -> Tensor:
        support, images = (F.normalize(self.cells(x), dim=-1) for x in (features, scored))
        same = labels.unsqueeze(2) == labels.unsqueeze(1)  # [T, S, S]
        itself = torch.eye(labels.shape[1], dtype=torch.bool, device=labels.device)
        allowed = torch.where((same.sum(-1) > 1).unsqueeze(-1), same & ~itself, same)
        allowed = allowed.repeat(1, scored.shape[1] // features.shape[1], 1)  # [T, V·S, S]
        allowed = allowed.repeat_interleave(support.shape[2], 2).unsqueeze(2)  # [T, V·S, 1, S·cells]
        cosines = images @ support.flatten(1, 2).transpose(1, 2).unsqueeze(1)  # [T, V·S, cells, S·cells]
        return self.log_scale.exp() * mean_of_nearest(cosines, allowed, self.nearest).mean(-1)

    def plain(self, state: State) -> nn.Module:
        scale = self.log_scale.detach().exp()
        return DescriptorClassifier(state["descriptors"], state["present"], scale, self.nearest)


def similarity(cells: Tensor, descriptors: Tensor, present: Tensor, nearest: int) -> Tensor:
    """How like each class the images are.

    Args:
        cells: ``[T, Q, cells, d]``.
        descriptors: ``[T, ways, M, d]`` of length 1, of which those count that are ``present`` ``[T, ways,
            M]``.
        nearest: k.

    Returns:
        ``[T, Q, ways]``.
    """
    cells = F.normalize(cells, dim=-1)
    found = []
    for c in range(descriptors.shape[1]):  # class by class: all their cosines at once would need much memory
        cosines = cells @ descriptors[:, c].transpose(1, 2).unsqueeze(1)  # [T, Q, cells, M]
        allowed = present[:, c, None, None] > 0.5
        found.append(mean_of_nearest(cosines, allowed, nearest).mean(-1))
    return torch.stack(found, -1)


def mean_of_nearest(cosines: Tensor, allowed: Tensor, nearest: int) -> Tensor:
    """``[..., M]`` -> ``[...]``: the mean of the largest k of those allowed, of fewer all."""
    kept = cosines.masked_fill(~allowed, -torch.inf).topk(min(nearest, cosines.shape[-1]), -1).values
    real = kept != -torch.inf
    return torch.where(real, kept, 0.0).sum(-1) / real.sum(-1)


class DescriptorClassifier(nn.Module):
    """One task's descriptors, features ``[B, d · cells]`` -> logits ``[B, ways]``."""

    descriptors: Tensor
    present: Tensor
    scale: Tensor

    def __init__(self, descriptors: Tensor, present: Tensor, scale: Tensor, nearest: int) -> None:
        super().__init__()
        self.nearest = nearest
        for name, value in (("descriptors", descriptors), ("present", present), ("scale", scale)):
            self.register_buffer(name, value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        cells = unflattened(x, self.descriptors.shape[-1]).unsqueeze(0)
        return self.scale * similarity(cells, self.descriptors, self.present, self.nearest)[0]
