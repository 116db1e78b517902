"""Which classes a split holds, by name, and which of them training had: the test's may be none of those."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from episodes import ClassPool, EpisodesError
from metafilm.config.config import Config
from metafilm.config.criteria import drawn
from metafilm.config.messages import flag
from metafilm.config.sources import load_pools
from metafilm.errors import MetafilmError

TURNED = re.compile(r"/rot(000|090|180|270)$")  # how ClassPool.rotated_classes names a class that it turned


@dataclass(frozen=True)
class Classes:
    """One data set's part of a split: ``names``, sorted. A turned class counts as the one that was turned."""

    dataset: str
    scheme: str | None
    split: str
    names: tuple[str, ...]

    def known_to(self, training: Iterable[Classes]) -> tuple[str, ...]:
        """Those that are among ``training``'s classes of the same data.

        Folders of pictures all count as the same data: "cat" is the same class wherever its pictures lie.
        """
        known = {name for other in training if _kind(other) == _kind(self) for name in other.names}
        return tuple(name for name in self.names if name in known)


def _kind(classes: Classes) -> str:
    """Data sets whose classes of one name are the same: omniglot-criteria has Omniglot's images."""
    if classes.dataset.startswith("folder:"):
        return "folder"
    return classes.dataset.removesuffix("-criteria")


def classes_of(config: Config, split: str, pools: Iterable[ClassPool]) -> tuple[Classes, ...]:
    """The classes of a split's pools, an entry per data set; none for functions."""
    names = (config.data.name,) if isinstance(config.data.name, str) else config.data.name
    return tuple(
        Classes(name, config.data.scheme, split, _base_names(pool, drawn(config, pool)))
        for name, pool in zip(names, pools, strict=False)
    )


def _base_names(pool: ClassPool, criteria: tuple[str, ...]) -> tuple[str, ...]:
    """The pool's classes without turns, or the values of the attributes that tasks are sorted by, where these
    aren't the classes with their attribute's name."""
    if not criteria:
        return tuple(sorted({TURNED.sub("", name) for name in pool.class_names}))
    return tuple(
        sorted(
            value if attribute.value_names == pool.class_names else f"{attribute.name} {value}"
            for attribute in pool.attributes
            if attribute.name in criteria
            for value in attribute.value_names
        )
    )


def classes_again(config: Config, root: str | Path | None) -> tuple[Classes, ...] | None:
    """The classes a run was trained on, for weights that don't name them: from the data that its settings
    name. None where these aren't there (any more)."""
    data = replace(config.data, rotated_classes=False, in_memory=False, download=False)
    try:
        pools = load_pools(replace(config, data=data), data.train_split, root)
    except EpisodesError:
        return None
    return classes_of(config, data.train_split, pools)


def require_disjoint(
    config: Config,
    training: Iterable[ClassPool],
    validation: Iterable[ClassPool],
    before: Sequence[Classes] = (),
) -> None:
    """Raise MetafilmError when validation classes are trained on, in their own data set or in another of the
    same kind, unless the settings allow it: the best weights would be those that know the training classes by
    heart.

    Args:
        before: classes that the weights to start from were trained on.
    """
    if config.data.allow_overlap:
        return
    seen = classes_of(config, config.data.train_split, training)
    held_out = classes_of(config, config.data.validation_split, validation)
    for chosen in held_out:
        if shared := chosen.known_to(before):
            raise MetafilmError(
                f"{chosen.dataset}: {len(shared)} of the {len(chosen.names)} classes of "
                f"{flag('data', 'validation_split')} {chosen.split} are among those that "
                f"{flag('backbone', 'weights')} {config.backbone.weights} were trained on, {shared[0]!r} for "
                "one: the best weights would be chosen on classes that they know. Start from others, or say "
                f"{flag('data', 'allow_overlap')} True"
            )
        if shared := chosen.known_to(seen):
            known = next(part for part in seen if chosen.known_to([part]))
            other = f" of {known.dataset}" if known.dataset != chosen.dataset else ""
            scheme = f" of scheme {chosen.scheme}" if chosen.scheme else ""
            raise MetafilmError(
                f"{chosen.dataset}: {len(shared)} of the {len(chosen.names)} classes of "
                f"{flag('data', 'validation_split')} {chosen.split}{scheme} are in "
                f"{flag('data', 'train_split')} {known.split}{other} too, {shared[0]!r} for one: the best "
                "weights would be chosen on classes that they were trained on. Name splits that share no "
                f"class, or say {flag('data', 'allow_overlap')} True"
            )
