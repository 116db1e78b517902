"""Episodes that draw by which attribute of their images they sort, as the settings ask for them."""

from __future__ import annotations

from typing import Any

from episodes import ClassPool, CriterionSampler
from episodes.transforms import augment
from metafilm.config.config import Config
from metafilm.config.messages import flag
from metafilm.errors import MetafilmError
from metafilm.heads import HEADS


def drawn(config: Config, pool: ClassPool) -> tuple[str, ...]:
    """Names of the attributes that tasks are sorted by; none: they are of classes."""
    criteria = config.episodes.criteria
    if isinstance(criteria, str):
        return tuple(attribute.name for attribute in pool.attributes) if criteria == "all" else ()
    return criteria


def criterion_sampler(
    config: Config, pool: ClassPool, shape: tuple[Any, Any, int], seed: int, *, training: bool
) -> CriterionSampler:
    """Episodes of this (ways, shots, queries); augmented, and with views, in training.

    Raises:
        EpisodesError: the pool lacks a criterion, or images for it.
        MetafilmError: an augmentation would change what a criterion tells apart.
    """
    criteria = None if config.episodes.criteria == "all" else drawn(config, pool)
    inner = config.inner
    views = inner.views if HEADS[config.head.name].held_out_views else 0
    named = config.episodes.augment
    named = named if isinstance(named, str) else named[0]  # of one data set there is one
    augmentation = named if training else "none"
    adapts = inner.steps or inner.evaluation_steps
    used = {"episodes.augment": augmentation, "inner.view_augment": inner.view_augment if adapts else "none"}
    if not views:
        del used["inner.view_augment"]
    for attribute in pool.attributes:
        for setting, name in used.items():
            if name in attribute.spoiled_by and (criteria is None or attribute.name in criteria):
                safe = [other for other in augment.BY_NAME if not _spoils(other, pool)]
                raise MetafilmError(
                    f"{flag(setting)} {name} changes the {attribute.name} of images, by which tasks are "
                    f"sorted ({flag('episodes.criteria')}): choose {' or '.join(safe)}"
                    f"{', or --inner.views 0' if setting == 'inner.view_augment' else ''}"
                )
    drawn_views = views if training and inner.steps else 0
    return CriterionSampler(
        pool,
        *shape,
        seed,
        criteria=criteria,
        augment=augment.by_name(augmentation),
        views=drawn_views,
        view_augment=augment.by_name(inner.view_augment) if drawn_views else None,
    )


def _spoils(name: str, pool: ClassPool) -> bool:
    return any(name in attribute.spoiled_by for attribute in pool.attributes)
