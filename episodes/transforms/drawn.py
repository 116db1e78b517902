"""Augmentations with an episode's own random numbers."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.counter import Stream, uniforms
from episodes.transforms.protocols import Augment, Transform


def draws(
    seed: int, numbers: NDArray[np.int64], stream: Stream, chance: Augment | Transform, *shape: int
) -> Tensor:
    """float64 [T, *shape, chance.num_uniforms]: what `chance` asks for, in each of T episodes."""
    return torch.from_numpy(uniforms(seed, numbers, stream, (*shape, chance.num_uniforms)))


def augmented(
    images: Tensor, augment: Augment | None, seed: int, numbers: NDArray[np.int64], stream: Stream
) -> Tensor:
    """images [T, n, C, H, W], each augmented by a draw of its own; as they are without an augmentation."""
    if augment is None or images.shape[1] == 0:
        return images
    own = draws(seed, numbers, stream, augment, images.shape[1]).flatten(0, 1)
    return augment(images.flatten(0, 1), own).view(images.shape)


def support_views(
    support: Tensor, views: int, augment: Augment | None, seed: int, numbers: NDArray[np.int64]
) -> Tensor | None:
    """Augmented copies [T, V, S, C, H, W] of support images [T, S, C, H, W], or None when none are asked
    for."""
    if views == 0 or augment is None:
        return None
    # [T, S, C, H, W] -> [T, V * S, C, H, W]
    copies = support[:, None].expand(-1, views, *support.shape[1:]).flatten(1, 2)
    made = augmented(copies, augment, seed, numbers, Stream.VIEWS)
    return made.view(len(numbers), views, *support.shape[1:])
