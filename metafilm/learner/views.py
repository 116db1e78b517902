"""Augmented copies of support images: what the inner loop's loss holds out."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes import counter
from episodes.transforms import augment


def augmented_views(images: Tensor, views: int, name: str, index: Tensor, seed: int = 0) -> Tensor:
    """Copies of each task's support images, a pure function of the images and the episode numbers.

    Args:
        images: ``[T, S, C, H, W]`` float in [0, 1].
        views: V, copies of each image.
        name: augmentation (:func:`episodes.transforms.augment.by_name`); ``"none"`` copies them unchanged.
        index: ``[T]`` episode numbers.
        seed: another one gives other copies.

    Returns:
        ``[T, V·S, C, H, W]``: all of copy 1, then all of copy 2 ...
    """
    copies = images.repeat(1, views, *[1] * (images.dim() - 2))
    by = augment.by_name(name)
    if by is None:
        return copies
    draws = counter.uniforms(
        seed, index.cpu().numpy(), counter.Stream.VIEWS, (copies.shape[1], by.num_uniforms)
    )
    return by(copies.flatten(0, 1), torch.from_numpy(draws).flatten(0, 1)).unflatten(0, copies.shape[:2])
