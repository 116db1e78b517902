"""The episodes of a training run, opened before anything is written or built."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

from metafilm.config.classes import Classes, classes_again, require_disjoint
from metafilm.config.config import Config
from metafilm.config.sources import Source, evaluation_source, training_source
from metafilm.engine.distributed import Group
from metafilm.learner.build import is_pretrained
from metafilm.storage.models import model_path, read_classes, read_model

VALIDATION_SEED = 1_000_000


class Data(NamedTuple):
    """``training``: episodes to learn from; ``validation``: those that choose the best weights; ``seen``:
    plain episodes of the training classes, to see the gap between the two; ``before``: classes that the
    weights to start from were trained on."""

    training: Source
    validation: Source
    seen: Source
    before: tuple[Classes, ...] = ()


def open_data(config: Config, root: str | Path | None = None, group: Group | None = None) -> Data:
    """Read what the settings name, the group's leader first: it builds the cache that the others read.

    Every process of the group calls this.

    Raises:
        EpisodesError: the data are absent, damaged or too few for the episodes asked for.
        MetafilmError: training, or that of the weights to start from, shares a class with validation, see
            ``require_disjoint``.
        CheckpointError: there are no such weights to start from.
    """
    group = group or Group()
    if not group.leads:
        group.wait()
    training = training_source(config, root)
    validation = evaluation_source(config, config.data.validation_split, root, seed=VALIDATION_SEED)
    before = trained_before(config, root)
    require_disjoint(config, training.pools, validation.pools, before)
    seen = evaluation_source(
        config, config.data.train_split, root, seed=VALIDATION_SEED, pools=training.pools
    )
    if group.leads:
        group.wait()
    return Data(training, validation, seen, before)


def trained_before(config: Config, root: str | Path | None) -> tuple[Classes, ...]:
    """The classes that the weights to start from were trained on; none for random ones and for those of timm
    and torchvision. Warns where they name none, and the data of their own settings are not there.

    Raises:
        CheckpointError: there are no such weights.
    """
    weights = config.backbone.weights
    if weights is None or is_pretrained(config.backbone.name):
        return ()
    path = model_path(weights)
    classes = read_classes(path)
    if classes is None:
        classes = classes_again(read_model(path)[1], root)
    if classes is None:
        warnings.warn(
            f"{weights} does not say which classes it was trained on; if validation or test classes are "
            "among them, their accuracy is none on new classes",
            stacklevel=2,
        )
    return classes or ()
