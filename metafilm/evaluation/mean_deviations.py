"""One δ for all tasks in the place of each one's own: what the encoder gains by reading is the difference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from episodes.sampling.prefetch import Sampler
from metafilm import film
from metafilm.conditioning import ConstantEncoder
from metafilm.learner.learner import MetaFiLM

TASKS = 64  # whose deviations are averaged


def mean_encoder(learner: MetaFiLM, sampler: Sampler, first: int) -> ConstantEncoder:
    """The mean of the encoder's deviations over the tasks ``first``, ``first`` + 1 ..., which are others than
    those before them, as an encoder that gives it to every task."""
    device = learner.mean.device
    with learner.evaluating(), torch.no_grad():
        found = [
            learner.encoded(sampler.batch([number]).to(device))[0] for number in range(first, first + TASKS)
        ]
        constant = ConstantEncoder(film.sites(learner.backbone)).to(device, learner.mean.dtype)
        for name, value in zip(constant.names, constant.deviations, strict=True):
            value.copy_(torch.cat([deviations[name] for deviations in found]).mean(0))
    return constant


@contextmanager
def in_place_of_encoder(learner: MetaFiLM, encoder: ConstantEncoder) -> Iterator[None]:
    """The learner with another encoder for the time of the context."""
    own, learner.encoder = learner.encoder, encoder
    try:
        yield
    finally:
        learner.encoder = own
