"""Augmented copies of the support that a head is fitted to together with it, in evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from episodes import Episode
from metafilm.learner.batches import augmented_views

SEED = 2  # other copies than the inner loss and the gate hold out


def with_copies(network: Any, episode: Episode) -> Episode:
    """The episode with ``network.copies`` copies of each support image after the support, by the augmentation
    ``network.copy_augment``: all of copy 1, then all of copy 2 ... As it is where there are none, and in
    training. The queries stay as they are (Tian et al., ECCV 2020, arXiv:2003.11539, fit their classifier to
    four copies more).

    A pure function of the images and the episode's number.
    """
    copies = getattr(network, "copies", 0)
    if not copies or network.training:
        return episode
    images = network.unit(episode.support_images)
    more = augmented_views(images, copies, network.copy_augment, episode.index, seed=SEED)
    return replace(
        episode,
        support_images=torch.cat((images, more), 1),
        support_labels=episode.support_labels.repeat(1, 1 + copies),
        support_ids=None,
        support_views=None,
    )
