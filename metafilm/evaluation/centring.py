"""The training classes' mean feature, which a head's transform takes off all features."""

from __future__ import annotations

import torch

from episodes.sampling.prefetch import Sampler
from metafilm.learner.learner import MetaFiLM

IMAGES = 2000
TOGETHER = 8  # tasks that go through the network together


@torch.no_grad()
def centre(learner: MetaFiLM, sampler: Sampler, images: int = IMAGES) -> None:
    """Measure the mean that ``centre`` in the head's transform takes off, where it does; else do nothing.

    Args:
        learner: its weights as they are now; features are those at δ = 0.
        sampler: tasks of the training classes without augmentation, of which the first are used.
        images: how many at least.
    """
    transform = learner.head.transform
    if transform is None or not transform.centres:
        return
    total, count, first = torch.zeros_like(transform.mean, dtype=torch.float64), 0, 0
    with learner.evaluating():
        while count < images:
            for episode in sampler.batches(range(first, first + TOGETHER), TOGETHER):
                episode = episode.to(learner.mean.device)
                support = episode.support_labels.shape[1]
                both = torch.cat((episode.support_images, episode.query_images), 1)
                features = learner.features(learner.prepare(both), {}, episode.tasks, support=support)
                total += transform.before_centre(learner.head.whole(features)).sum(
                    (0, 1), dtype=torch.float64
                )
                count += features.shape[0] * features.shape[1]
            first += TOGETHER
    transform.mean.copy_(total / count)
