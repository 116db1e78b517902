"""The episodes of a training run, opened before anything is written or built."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from metafilm.config.classes import require_disjoint
from metafilm.config.config import Config
from metafilm.config.sources import Source, evaluation_source, training_source
from metafilm.engine.distributed import Group

VALIDATION_SEED = 1_000_000


class Data(NamedTuple):
    """``training``: episodes to learn from; ``validation``: those that choose the best weights; ``seen``:
    plain episodes of the training classes, to see the gap between the two."""

    training: Source
    validation: Source
    seen: Source


def open_data(config: Config, root: str | Path | None = None, group: Group | None = None) -> Data:
    """Read what the settings name, the group's leader first: it builds the cache that the others read.

    Every process of the group calls this.

    Raises:
        EpisodesError: the data are absent, damaged or too few for the episodes asked for.
        MetafilmError: training and validation share a class, see ``require_disjoint``.
    """
    group = group or Group()
    if not group.leads:
        group.wait()
    training = training_source(config, root)
    validation = evaluation_source(config, config.data.validation_split, root, seed=VALIDATION_SEED)
    require_disjoint(config, training.pools, validation.pools)
    seen = evaluation_source(
        config, config.data.train_split, root, seed=VALIDATION_SEED, pools=training.pools
    )
    if group.leads:
        group.wait()
    return Data(training, validation, seen)
