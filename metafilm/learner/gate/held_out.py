"""How well a support set's own images are told apart when they have no say: before adaptation, and after."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from episodes import Episode
from metafilm import norms
from metafilm.film import FilmDict
from metafilm.learner.gate.folds import counts, folds, positions


class HeldOut(NamedTuple):
    """Percent right of ``images``, at δ = 0 (``before``) and under held-out deviations (``after``)."""

    before: float
    after: float
    images: int


@torch.no_grad()
def leave_one_out(
    learner: Any, episode: Episode, *, steps: int | None = None, gate: bool | None = None
) -> HeldOut | None:
    """Leave-one-out accuracy of one task's support.

    Each image is named by a head fitted to all the others, and normalised by them alone where the norms read
    the support (in mode ``transductive`` by all together, as queries are). After adaptation, features are
    those under deviations that only the half without the image was adapted to, and the gate chose by that
    half alone: the image has a say in nothing. Half the images adapt less well than all do, so that the whole
    support's deviations are better rather than worse.

    Args:
        learner: a :class:`metafilm.MetaFiLM` in evaluation mode, no regression.
        episode: one task.
        steps, gate: as in :meth:`metafilm.MetaFiLM.adaptation`.

    Returns:
        None where no class has a second image, so that none can be left out.
    """
    if counts(episode.support_labels, episode.ways).max() < 2:
        return None
    before = after = images = 0
    for fold, rows in zip(folds(episode), positions(episode), strict=True):
        adapted = learner.adaptation(fold, steps=steps, gate=gate, all_stages=False).films[-1]
        before += _right(learner, episode, rows, {})
        after += _right(learner, episode, rows, adapted)
        images += len(rows)
    return HeldOut(100 * before / images, 100 * after / images, images)


def _right(learner: Any, episode: Episode, rows: list[int], deviations: FilmDict) -> int:
    """How many of these images of the support are named rightly by a head fitted to all but each."""
    labels, x = episode.support_labels, learner.prepare(episode.support_images)
    by_support = norms.mode_of(learner.backbone) == "support"
    together = None if by_support else learner.head.seen(learner.features(x, deviations, 1))
    right = 0
    for row in rows:
        order = [*(other for other in range(labels.shape[1]) if other != row), row]
        if together is None:  # what normalises is all but the image too
            features = learner.features(x[order], deviations, 1, support=len(order) - 1)
            seen = learner.head.seen(features)
        else:
            seen = together[:, order]
        state = learner.head.fit(seen[:, :-1], labels[:, order[:-1]], episode.ways)
        found = learner.head.predict(state, seen[:, -1:]).argmax(-1)
        right += int(found.item() == labels[0, row].item())
    return right
