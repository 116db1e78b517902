"""Features that many tasks share, computed once: those of a network that does not adapt."""

from __future__ import annotations

from collections.abc import Sequence
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
        self._rows: dict[bytes, int] = {}
        self._kept: Tensor | None = None

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
        fresh = {key: row for row, key in enumerate(keys) if key not in self._rows}
        found = None
        if fresh:
            learner, first = self.learner, list(fresh.values())
            rows = changed(learner.unit(flat[first]), copy, learner.copy_augment)
            found = learner.features(learner.prepare(rows.unsqueeze(0)), {}, 1)[0]
            self._keep(list(fresh), found)
        places = [self._rows.get(key, -1) for key in keys]
        assert self._kept is not None
        result = self._kept[[max(place, 0) for place in places]]
        if found is not None and (new := [row for row, place in enumerate(places) if place < 0]):
            order = {key: number for number, key in enumerate(fresh)}
            result[new] = found[[order[keys[row]] for row in new]]
        return result.unflatten(0, images.shape[:2])

    def _keep(self, keys: Sequence[bytes], features: Tensor) -> None:
        """As many as there is room for."""
        if self._kept is None:
            self._kept = features.new_zeros(1, features.shape[1])
        most = max(self.room // self._kept[0].nbytes, 1)
        number = min(len(keys), most - len(self._rows))
        while (size := len(self._kept)) < len(self._rows) + number:
            more = self._kept.new_zeros(min(size, most - size), features.shape[1])
            self._kept = torch.cat((self._kept, more))
        begin = len(self._rows)
        self._kept[begin : begin + number] = features[:number]
        self._rows |= {key: begin + row for row, key in enumerate(keys[:number])}
