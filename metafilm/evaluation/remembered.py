"""Features that many tasks share, computed once: those of a network that does not adapt."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from episodes import Episode
from metafilm import norms
from metafilm.learner.copies import changed, looks_at_queries, with_copies
from metafilm.learner.learner import MetaFiLM

ROOM = 2 << 30  # bytes
READS_OTHERS = ("support", "transductive")  # modes of norms


class Remembered:
    """A learner's predictions at δ = 0, where an image's features are a function of its pixels alone: each
    image goes through the network once, however many tasks draw it.

    Images are told apart by a digest of their pixels, so that it does not matter where they come from. The
    result differs from :meth:`MetaFiLM.predictions` by rounding only, as another batch would.

    Args:
        learner: in evaluation mode, its weights and its precision the same all along.
        room: bytes of features that are kept; beyond it they are computed anew.
    """

    def __init__(self, learner: MetaFiLM, room: int = ROOM) -> None:
        self.learner, self.room = learner, room
        self._known: dict[bytes, Tensor] = {}

    @staticmethod
    def possible(learner: MetaFiLM) -> bool:
        """Whether an image's features at δ = 0 depend on nothing else, and looking them up is worth it: on a
        GPU computing them anew is as fast."""
        images = len(learner.image_shape) == 3 and learner.mean.device.type == "cpu"
        return images and norms.mode_of(learner.backbone) not in READS_OTHERS

    def predictions(self, episode: Episode) -> Tensor:
        """``[T, Q, ways]`` at δ = 0."""
        learner, count = self.learner, looks_at_queries(self.learner)
        queries = torch.cat([self._features(episode.query_images, copy) for copy in range(count)], 1)
        if not learner.reads_support:
            found = learner.judged(queries, episode.support_labels, episode.ways, 0)
        else:
            own = [self._features(episode.support_images, 0)]
            if count > 1:
                own += [self._features(episode.support_images, 1 + copy) for copy in range(learner.copies)]
            elif learner.copies:  # each task's own: nothing to remember
                more = with_copies(learner, episode).support_images[:, own[0].shape[1] :]
                own.append(learner.features(learner.prepare(more), {}, episode.tasks))
            support = torch.cat(own, 1)
            labels = episode.support_labels.repeat(1, support.shape[1] // own[0].shape[1])
            features = torch.cat((support, queries), 1)
            found = learner.judged(features, labels, episode.ways, support.shape[1])
        return found.unflatten(1, (count, -1)).mean(1)

    def _features(self, images: Tensor, copy: int) -> Tensor:
        """``[T, n, D]`` of copy number ``copy`` of each image ``[T, n, C, H, W]``."""
        flat = images.flatten(0, 1)
        pixels = flat.contiguous().flatten(1).numpy().view(np.uint8)
        keys = [blake2b(image, digest_size=16, salt=copy.to_bytes(8)).digest() for image in pixels]
        rows = {key: self._known[key] for key in keys if key in self._known}
        unknown = {key: row for row, key in enumerate(keys) if key not in rows}
        if unknown:
            learner, first = self.learner, list(unknown.values())
            seen = changed(learner.unit(flat[first]), copy, learner.copy_augment)
            found = learner.features(learner.prepare(seen.unsqueeze(0)), {}, 1)[0]
            rows |= (fresh := dict(zip(unknown, found, strict=True)))
            if found.nbytes <= self.room:
                self.room -= found.nbytes
                self._known |= fresh
        return torch.stack([rows[key] for key in keys]).unflatten(0, images.shape[:2])
