"""What heads share that compare the cells of maps, not one vector for each image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError
from metafilm.heads.base import Head, State, task_cross_entropy


class LocalHead(Head):
    """A head that takes features as the cells of maps, which the backbone leaves flattened: ``[..., d ·
    cells]``, all cells of the first map, then of the second ... In the inner loss an image (or an augmented
    copy of it) is compared with its class *without* that image, wherever the class has another one.

    Args:
        features: D = d · cells.
        scale: first value of the learned factor on the logits.
        cells: of a map.

    Raises:
        MetafilmError: no positive scale, or features that are no multiple of the cells.
    """

    local = True

    def __init__(self, features: int, scale: float, cells: int) -> None:
        super().__init__()
        if not scale > 0:
            raise MetafilmError(f"head scale {scale} must be positive")
        if cells < 1 or features % cells:
            raise MetafilmError(f"{features} features can't be maps of {cells} cells each")
        self.arguments = {"features": features, "scale": scale, "cells": cells}
        self.channels = features // cells
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @classmethod
    def build(cls, in_features: int, ways: int, scale: float, cells: int = 1) -> Head:
        return cls(in_features, scale, cells)

    def cells(self, features: Tensor) -> Tensor:
        """``[..., d · cells]`` -> ``[..., cells, d]``."""
        return unflattened(features, self.channels)

    def whole(self, features: Tensor) -> Tensor:
        """The mean over the cells, of maps of any size."""
        return self.cells(features).mean(-2)

    def whole_size(self, features: int) -> int:
        return self.channels

    def own(self, features: Tensor, labels: Tensor, ways: int, scored: Tensor) -> Tensor:
        """The logit of its own class for each image or copy, ``[T, V·S]``, without the image's own part in
        the class where it has another one; arguments as of ``inner_loss``, ``scored`` its images or copies.
        """
        raise NotImplementedError

    def inner_loss(self, features: Tensor, labels: Tensor, ways: int, views: Tensor | None) -> Tensor:
        scored = features if views is None else views
        labels_of_all = labels.repeat(1, scored.shape[1] // features.shape[1])
        logits = self.predict(self.fit(features, labels, ways), scored)
        own = self.own(features, labels, ways, scored).unsqueeze(-1)
        logits = torch.where(F.one_hot(labels_of_all, ways).bool(), own, logits)
        return task_cross_entropy(logits, labels_of_all)

    def familiarity(self, state: State, features: Tensor, counts: Tensor) -> Tensor:
        """The logit of the likeliest class, without the scale: how close the image comes to it."""
        return (self.predict(state, features) / self.log_scale.exp()).amax(-1)


def unflattened(features: Tensor, channels: int) -> Tensor:
    """``[..., d · cells]`` -> ``[..., cells, d]`` with d ``channels``."""
    return features.unflatten(-1, (channels, -1)).transpose(-1, -2)
