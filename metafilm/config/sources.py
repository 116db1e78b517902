"""From a configuration to samplers of episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import episodes
from episodes import ClassPool, Episode, EpisodeSampler, counter
from episodes.sampling import per_pool
from episodes.sampling.prefetch import Sampler
from episodes.transforms import augment
from episodes.transforms.protocols import Transform
from episodes.transforms.warp import Warp
from metafilm.config.config import Config
from metafilm.config.criteria import criterion_sampler
from metafilm.config.messages import flag
from metafilm.config.settings import REGRESSION_DATA
from metafilm.errors import MetafilmError
from metafilm.heads import HEADS

FOLDER_SCHEMES = ("split", "all")  # of a folder of pictures, which stands in no registry


@dataclass(frozen=True)
class Source:
    """A split's episodes, and what a learner must know of the data.

    ``build``: keyword arguments of :func:`metafilm.learner.build_learner`; ``pools``: none for functions.
    """

    sampler: Sampler
    pools: tuple[ClassPool, ...]

    @property
    def classes(self) -> int:
        """Classes of all pools together; those of a pool that is listed twice count once."""
        return sum(pool.num_classes for pool in self._distinct)

    @property
    def _distinct(self) -> list[ClassPool]:
        return list({id(pool): pool for pool in self.pools}.values())

    @property
    def build(self) -> dict[str, object]:
        if not self.pools:
            mean, std = function_statistics(self.sampler)
            return {"image_shape": [1], "train_classes": 0, "mean": mean, "std": std}
        mean, std = statistics(self.pools)
        return {
            "image_shape": list(self.pools[0].image_shape),
            "train_classes": self.classes,
            "mean": mean,
            "std": std,
        }

    def global_classes(self, episode: Episode) -> Episode:
        """The episode with class ids counted through all pools of a mixture."""
        if len(self.pools) < 2 or episode.pool_ids is None or episode.class_ids is None:
            return episode
        before, count = {}, 0
        for pool in self._distinct:
            before[id(pool)] = count
            count += pool.num_classes
        counts = torch.tensor([before[id(pool)] for pool in self.pools], device=episode.class_ids.device)
        return replace(episode, class_ids=episode.class_ids + counts[episode.pool_ids].unsqueeze(1))


def function_statistics(sampler: Sampler) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of a function's inputs, uniform over the sampler's ``x_range``."""
    low, high = getattr(sampler, "x_range", (-1.0, 1.0))
    return [(low + high) / 2], [(high - low) / 12**0.5]


def statistics(pools: tuple[ClassPool, ...]) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation in [0, 1], the average over pools."""
    found = [pool.mean_std() for pool in pools]
    means, stds = (
        torch.stack([torch.as_tensor(pair[i], dtype=torch.float64) for pair in found]).mean(0) for i in (0, 1)
    )
    return means.tolist(), _positive(stds)


def _positive(stds: Tensor) -> list[float]:
    return [value if value > 0 else 1.0 for value in stds.tolist()]


def load_pools(
    config: Config, split: str, root: str | Path | None = None, channels: int | None = None
) -> tuple[ClassPool, ...]:
    """The pools of a split, one per data set named (one named twice is loaded once), all of so many channels
    (None: the most that one of them has); none for functions.

    Raises EpisodesError, and MetafilmError: no data set of a mixture has the scheme asked for.
    """
    if config.data.name in REGRESSION_DATA:
        return ()
    names, scheme = config.data.names, config.data.scheme
    if len(names) > 1 and scheme is not None and not any(_has_scheme(name, scheme) for name in names):
        raise MetafilmError(
            f"{flag('data', 'scheme')} is {scheme}, which none of {', '.join(names)} has; name a scheme that "
            "one of them has (see metafilm data list), or leave it empty"
        )
    pools = {
        name: episodes.load(
            name,
            split,
            root=root,
            image_size=config.data.image_size,
            # of a mixture's data sets only some have schemes of that name
            scheme=scheme if len(names) == 1 or _has_scheme(name, scheme) else None,
            download=config.data.download,
            in_memory=config.data.in_memory,
        )
        for name in dict.fromkeys(names)
    }
    if config.data.classes is not None and split == config.data.train_split:
        pools = {name: _some_classes(pool, config) for name, pool in pools.items()}
    channels = channels or max(pool.image_shape[0] for pool in pools.values())
    pools = {name: pool.with_channels(channels) for name, pool in pools.items()}
    if config.data.rotated_classes:
        pools = {name: pool.rotated_classes() for name, pool in pools.items()}
    return tuple(pools[name] for name in names)


def _some_classes(pool: ClassPool, config: Config) -> ClassPool:
    """The `data.classes` of a pool that training has, in the pool's order.

    Raises MetafilmError when it has fewer."""
    wanted, there = config.data.classes or 0, pool.num_classes
    if wanted > there:
        raise MetafilmError(
            f"{flag('data.classes')} is {wanted}, but {pool.name or 'the data set'} has {there} classes in "
            f"its split {pool.split or config.data.train_split}; ask for at most {there}, or leave it empty"
        )
    keys = counter.words(config.seed, [0], counter.Stream.TRAINING_CLASSES, (there,))[0]
    return pool.subset(sorted(counter.first_of_shuffled(keys, wanted).tolist()))


def _has_scheme(name: str, scheme: str | None) -> bool:
    """Whether a data set has a class split of that name, with a seed behind a colon or without."""
    known = FOLDER_SCHEMES if name.startswith("folder:") else episodes.dataset(name).schemes
    return scheme is not None and scheme.partition(":")[0] in known


def training_source(config: Config, root: str | Path | None = None) -> Source:
    """Training episodes: with augmentation, rotated classes, style and warp, as the configuration says."""
    settings = config.episodes
    pools = load_pools(config, config.data.train_split, root)
    if not pools:
        return Source(_functions(config, settings.queries, config.seed), ())
    if settings.criteria != "none":
        shape = (settings.ways, settings.shots, settings.queries)
        return Source(criterion_sampler(config, pools[0], shape, config.seed, training=True), pools)
    views = config.inner.views if config.inner.steps and HEADS[config.head.name].held_out_views else 0
    sampler = EpisodeSampler(
        pools,
        settings.ways,
        settings.shots,
        settings.queries,
        config.seed,
        within_group=settings.within_group,
        rotation=settings.rotation,
        augment=[augment.by_name(name) for name in per_pool("augment", settings.augment, len(pools))],
        transform=[Warp(one) if settings.warp else one for one in _styles(settings.style, len(pools))],
        weights=config.data.weights,
        pool_run=config.outer.meta_batch if config.outer.one_domain else 1,
        views=views,
        view_augment=augment.by_name(config.inner.view_augment) if views else None,
    )
    return Source(sampler, pools)


def plain_source(config: Config, pools: tuple[ClassPool, ...], size: int | None = None) -> Source:
    """Batches of images of all training classes, each batch an episode of one task: as many classes as it has
    room for with two images each, its images spread evenly over them: no more of a class than the smallest
    has.

    Args:
        size: images in a batch; None: the settings' ``pretrain.batch``. Augmentation and style are those of
            ``pretrain`` in any case.
    """
    settings = config.pretrain
    size = size or settings.batch
    fewest = min(pool.num_classes for pool in pools)
    ways = max(min(size // 2, fewest), 2)
    each = min(size // ways, *(int(pool.counts.min()) for pool in pools))
    sampler = EpisodeSampler(
        pools,
        ways,
        1,
        max(each - 1, 1),
        config.seed,
        augment=augment.by_name(settings.augment),
        transform=style(settings.style),
        weights=config.data.weights,
    )
    return Source(sampler, pools)


def evaluation_source(
    config: Config,
    split: str,
    root: str | Path | None = None,
    *,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    seed: int = 0,
    style_name: str | None = None,
    pools: tuple[ClassPool, ...] | None = None,
    channels: int | None = None,
) -> Source:
    """Plain episodes of a split: no augmentation, rotation or warp; the style named, else the
    configuration's. Of a mixture each data set is drawn as often as the others.

    ``pools``: the split's, where they are loaded already. ``channels``: of the images, where a learner asks
    for so many, as one trained on a mixture with colours does of grey pictures too.

    None for ways, shots and queries takes the configuration's evaluation setting, else its training one (of a
    range the low end).
    """
    ways = ways or config.evaluation.ways or _low(config.episodes.ways)
    shots = shots or config.evaluation.shots or _low(config.episodes.shots)
    queries = queries or config.evaluation.queries or config.episodes.queries
    pools = load_pools(config, split, root, channels) if pools is None else pools
    if not pools:
        # the splits of a family of functions differ by seed alone
        splits = ("train", "val", "test")
        if split not in splits:
            raise MetafilmError(f"split {split!r} of {config.data.name}: choose one of {', '.join(splits)}")
        offset = splits.index(split)
        return Source(_functions(config, queries, 1_000_003 * (seed + 1) + offset, shots), ())
    if config.episodes.criteria != "none":
        shape = (ways, shots, queries)
        return Source(criterion_sampler(config, pools[0], shape, seed, training=False), pools)
    sampler = EpisodeSampler(
        pools,
        ways,
        shots,
        queries,
        seed,
        within_group=config.episodes.within_group,
        transform=_styles(style_name or config.episodes.style, len(pools)),
    )
    return Source(sampler, pools)


def style(name: str):
    """The per-task transform of that name; None for ``none``."""
    if name == "none":
        return None
    from episodes.transforms import styles

    return styles.by_name(name)


def _styles(names: str | tuple[str, ...], pools: int) -> list[Transform | None]:
    return [style(name) for name in per_pool("style", names, pools)]


def on_data(config: Config, name: str, image_size: int | None) -> Config:
    """The configuration with one data set in the place of its own. What is set for each data set of a mixture
    goes on as set for that one, where it is one of them (the first, where it is listed twice); else as the
    default, unless all have the same. The class split, the classes trained on and their turned copies go on
    where it is one of them alone."""
    default, own = Config().episodes, name in config.data.names

    def of_one(setting: str) -> object:
        value = getattr(config.episodes, setting)
        if not isinstance(value, tuple):
            return value
        if own:
            return value[config.data.names.index(name)]
        return value[0] if len(set(value)) == 1 else getattr(default, setting)

    changed = {setting: of_one(setting) for setting in ("within_group", "augment", "style")}
    data = replace(config.data, name=name, image_size=image_size, weights=None)
    if not own:
        data = replace(data, scheme=None, classes=None, rotated_classes=False)
    elif len(config.data.names) > 1 and not _has_scheme(name, data.scheme):
        data = replace(data, scheme=None)  # that of another data set of the mixture
    return replace(
        config,
        data=data,
        episodes=replace(config.episodes, **changed),  # type: ignore[arg-type]
    )


def _functions(config: Config, queries: int, seed: int, shots: int | None = None) -> Sampler:
    assert isinstance(config.data.name, str)  # the configuration's check refuses mixtures of functions
    sampler = episodes.dataset(config.data.name).sampler
    assert sampler is not None  # it is one of REGRESSION_DATA
    return sampler(shots=shots or _low(config.episodes.shots), queries=queries, seed=seed)


def _low(value: int | tuple[int, int]) -> int:
    return value if isinstance(value, int) else value[0]
