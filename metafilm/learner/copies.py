"""Augmented copies in evaluation: of the support, which the head is fitted to as well, and of the queries,
whose logits are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from episodes import Episode, counter
from episodes.transforms import augment
from metafilm.learner.batches import augmented_views
from metafilm.learner.network import SharedNetwork

SEED = 2  # other copies than the inner loss and the gate hold out


def with_copies(network: SharedNetwork, episode: Episode) -> Episode:
    """The episode with ``network.copies`` copies of each support image after the support, by the augmentation
    ``network.copy_augment``: all of copy 1, then all of copy 2 ... As it is where there are none, and in
    training. The queries stay as they are (Tian et al., ECCV 2020, arXiv:2003.11539, fit their classifier to
    four copies more).

    Where the queries have copies too, copy k of every image is made by transformation k (:func:`changed`), so
    that like is compared with like. Else each image has draws of its own, a pure function of the images and
    the episode's number.
    """
    copies = network.copies
    if not copies or network.training:
        return episode
    images = network.unit(episode.support_images)
    if looks_at_queries(network) > 1:
        images = with_looks(images, 1 + copies, network.copy_augment)
    else:
        more = augmented_views(images, copies, network.copy_augment, episode.index, seed=SEED)
        images = torch.cat((images, more), 1)
    return replace(
        episode,
        support_images=images,
        support_labels=episode.support_labels.repeat(1, 1 + copies),
        support_ids=None,
        support_views=None,
    )


def looks_at_queries(network: SharedNetwork) -> int:
    """How often each query is looked at in evaluation: itself and ``network.query_copies`` copies."""
    return 1 + network.query_copies


def looks(images: Tensor, count: int, name: str) -> Iterator[Tensor]:
    """The images, then their copies 1 ... ``count - 1``.

    Args:
        images: ``[B, C, H, W]`` float in [0, 1].
        count: how often each is looked at; 1: they are as they are.
        name: augmentation (:func:`episodes.transforms.augment.by_name`).

    Yields:
        ``[B, C, H, W]`` each.
    """
    return (changed(images, copy, name) for copy in range(count))


def with_looks(images: Tensor, count: int, name: str) -> Tensor:
    """``[T, n, C, H, W]`` -> ``[T, count·n, C, H, W]``: each task's images, then all of copy 1 ..."""
    seen = looks(images.flatten(0, 1), count, name)
    return torch.cat([look.unflatten(0, images.shape[:2]) for look in seen], 1)


def changed(images: Tensor, copy: int, name: str) -> Tensor:
    """Every image ``[B, C, H, W]`` by the same transformation, number ``copy`` of this augmentation; number 0
    leaves them as they are."""
    by = augment.by_name(name)
    if by is None or copy == 0 or images.shape[0] == 0:
        return images
    draws = counter.uniforms(SEED, np.array([copy]), counter.Stream.VIEWS, (by.num_uniforms,))
    # in the images' precision: an ONNX file has no tangent in another
    return by(images, torch.from_numpy(draws).to(images).expand(images.shape[0], -1))


class Averaged(nn.Module):
    """A network of one image whose logits are the mean over the image and its copies.

    Args:
        network: images ``[B, C, H, W]`` in [0, 1] -> ``[B, ways]``.
        count: how often each image is looked at.
        name: augmentation.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], count: int, name: str) -> None:
        super().__init__()
        self.network, self.count, self.name = network, count, name

    def forward(self, images: Tensor) -> Tensor:
        # one after the other: no more memory than one takes
        found = [self.network(look) for look in looks(images, self.count, self.name)]
        return torch.stack(found).mean(0)
