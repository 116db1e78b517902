"""Whether pools can serve the episodes asked of them, said before the first one is drawn."""

import operator
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch

from episodes.attribute import Attribute
from episodes.errors import EpisodesError
from episodes.pool import ClassPool

Range = int | tuple[int, int]
Value = TypeVar("Value")


def as_range(name: str, value: Range) -> tuple[int, int]:
    """(low, high) of a number or an inclusive range. Raises EpisodesError unless they are integers with 1 <=
    low <= high."""
    pair = tuple(value) if isinstance(value, Iterable) else (value, value)
    try:
        low, high = map(operator.index, pair)
    except (TypeError, ValueError):
        low, high = 0, 0
    if not 1 <= low <= high:
        raise EpisodesError(
            f"{name}={value!r}: give a number of at least 1, or a range (low, high) with low <= high"
        )
    return low, high


def as_count(name: str, value: int, least: int = 0) -> int:
    """A number from ``least`` on. Raises EpisodesError unless it is such an integer."""
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if count < least:
        raise EpisodesError(f"{name}={value!r}: give a whole number, {least} or more")
    return count


def per_pool(name: str, value: Value | Sequence[Value], pools: int) -> tuple[Value, ...]:
    """One value for all pools, or one for each, as one for each. Raises EpisodesError for another number."""
    if not isinstance(value, list | tuple):
        return (value,) * pools  # type: ignore[return-value]
    if len(value) != pools:
        raise EpisodesError(f"{name} has {len(value)} values for {pools} pools: give one, or one per pool")
    return tuple(value)


def check_pools(
    pools: Sequence[ClassPool],
    ways: int,
    shots: int,
    queries: int,
    within_group: Sequence[bool],
    weights: Sequence[float] | None,
) -> None:
    """EpisodesError unless every pool has classes and images enough and all fit together.

    ways, shots: the most that will be asked. within_group: one per pool.
    """
    if not pools:
        raise EpisodesError("an EpisodeSampler needs at least one pool")
    if len({pool.image_shape for pool in pools}) > 1:
        listed = "; ".join(f"{pool.name or p}: {pool.image_shape}" for p, pool in enumerate(pools))
        raise EpisodesError(
            f"pools of a mixture must have one image shape (C, H, W), got {listed}: "
            "load them with one image_size, and use .with_channels()"
        )
    _check_weights(weights, len(pools), "pools")
    for pool, grouped in zip(pools, within_group, strict=True):
        _check_pool(pool, ways, shots, queries, grouped)


def check_criteria(
    pool: ClassPool,
    criteria: Sequence[str] | None,
    ways: int,
    shots: int,
    queries: int,
    weights: Sequence[float] | None,
) -> tuple[Attribute, ...]:
    """The attributes of these names, all by default; EpisodesError unless the pool has them and enough of
    their values have images enough.

    ways, shots: the most that will be asked.
    """
    title = _title(pool)
    known = {attribute.name: attribute for attribute in pool.attributes}
    if not known:
        raise EpisodesError(
            f"{title} has no attributes to sort its images by: draw its classes with an EpisodeSampler"
        )
    names = tuple(known) if criteria is None else tuple(criteria)
    for name in names:
        if name not in known:
            raise EpisodesError(f"{title} can't be sorted by {name!r}: it has {', '.join(known)}")
    if not names or len(set(names)) != len(names):
        raise EpisodesError(f"criteria are {list(names)}: name one or several, each once")
    _check_weights(weights, len(names), "criteria")
    for name in names:
        attribute = known[name]
        able = attribute.counts >= shots + queries
        where = ""
        most = int(able.sum())
        if attribute.groups is not None:
            most = int(torch.bincount(attribute.groups, weights=able.double()).max())
            where = " in one group"
        if most < ways:
            raise EpisodesError(
                f"{title} has {most} values of {name!r}{where} with the {shots + queries} images that "
                f"{shots} shots + {queries} queries need, but {ways} ways need as many: ask for fewer"
            )
    return tuple(known[name] for name in names)


def _check_weights(weights: Sequence[float] | None, count: int, what: str) -> None:
    if weights is not None and (
        len(weights) != count or not np.isfinite(weights).all() or min(weights) < 0 or sum(weights) <= 0
    ):
        raise EpisodesError(
            f"weights={list(weights)} for {count} {what}: one non-negative number each, not all zero"
        )


def _title(pool: ClassPool) -> str:
    return " ".join(part for part in (pool.name, pool.split) if part) or "the pool"


def _check_pool(pool: ClassPool, ways: int, shots: int, queries: int, within_group: bool) -> None:
    title = _title(pool)
    fewest = int(pool.counts.argmin())
    if (count := int(pool.counts[fewest])) < shots + queries:
        raise EpisodesError(
            f"class {pool.class_names[fewest]!r} of {title} has {count} images, but {shots} shots + "
            f"{queries} queries need {shots + queries}: ask for fewer, or leave it out with pool.subset"
        )
    if pool.num_classes < ways:
        raise EpisodesError(
            f"{title} has {pool.num_classes} classes, but {ways} ways need as many: "
            "ask for fewer ways or another split"
        )
    if not within_group:
        return
    if pool.groups is None:
        raise EpisodesError(
            f"within_group needs groups of classes, but {title} has none: set within_group to False"
        )
    sizes = torch.bincount(pool.groups, minlength=len(pool.group_names))
    if int(sizes.max()) < ways:
        largest = pool.group_names[int(sizes.argmax())]
        raise EpisodesError(
            f"no group of {title} has {ways} classes; the largest, {largest!r}, has {int(sizes.max())}: "
            "ask for fewer ways or set within_group to False"
        )
