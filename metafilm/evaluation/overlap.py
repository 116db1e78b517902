"""Data sets whose test classes a network may have been trained on before it came to us."""

from __future__ import annotations

from collections.abc import Iterable

from metafilm.backbones.pretrained import LIBRARIES
from metafilm.learner.learner import MetaFiLM

IMAGENET = "ImageNet"
# (what the weights were trained on, the data set): why a score there is none on new classes
OVERLAPS = {
    (
        IMAGENET,
        "miniimagenet",
    ): "miniImageNet's classes, those of its test split too, are classes of ImageNet",
}
# backbone.weights -> what these were trained on. A file's weights are not known.
ORIGINS = {"default": IMAGENET, "lite0": IMAGENET}


def overlap(learner: MetaFiLM, datasets: Iterable[str]) -> str | None:
    """Why the learner's scores on one of these data sets would be none on new classes: what its backbone's
    weights were trained on before holds the data set's classes. None where nothing of the kind is known."""
    trained_on = ORIGINS.get(_weights(learner) or "")
    for name in datasets:
        if trained_on is not None and (trained_on, name) in OVERLAPS:
            return f"the backbone started from {trained_on} weights, and {OVERLAPS[trained_on, name]}"
    return None


def _weights(learner: MetaFiLM) -> str | None:
    """What the backbone started from, by the configuration or, without one, by the backbone itself."""
    config = learner.config
    if config is not None and config.backbone.name.partition(":")[0] in LIBRARIES:
        return config.backbone.weights
    return getattr(learner.backbone, "origin", None)
