"""How far apart classes are, and how far apart the images of one class, feature by feature.

What varies between classes against within them tells which criterion the labels follow: sorted by colour,
features of shape vary within the classes, and the other way round. It is Fisher's between- and within-class
scatter (1936), taken feature by feature; prototypes alone don't hold the second half.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 1e-2  # of the features' mean variance: below that a feature counts as still


def class_spread(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Logarithms of the standard deviation between and within classes, each about its mean over features.

    The mean over features is taken off, so features of any size give the same. With one image a class nothing
    varies within, and that half is 0.

    Args:
        features: ``[T, S, D]``.
        labels: ``[T, S]`` int64 in [0, ways); classes may have different counts.
        prototypes: ``[T, ways, D]``, the features' class means.

    Returns:
        ``[T, 2·D]``: between classes, then within them.
    """
    ways = prototypes.shape[1]
    between = prototypes.var(1, correction=0)  # [T, D]
    own = F.one_hot(labels, ways).to(features.dtype) @ prototypes  # [T, S, D], each image's class mean
    within = (features - own).square().sum(1) / max(labels.shape[1] - ways, 1)
    # the least keeps the gradient finite where all images are the same
    size = (between + within).mean(-1, keepdim=True).clamp(min=1e-20)  # [T, 1]
    logs = [0.5 * (variance / size + LEAST).log() for variance in (between, within)]
    return torch.cat([value - value.mean(-1, keepdim=True) for value in logs], -1)
