"""Data sets by name: what there is, how it is loaded, made ready and checked.

DATASETS is the one place where a data set is added: the command line, the configuration's check and every
message read it.
"""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass

from episodes.errors import EpisodesError
from episodes.files.root import expanded
from episodes.pool import ClassPool
from episodes.sampling.prefetch import Sampler

Root = str | os.PathLike | None


@dataclass(frozen=True)
class DataSet:
    """One entry of DATASETS: images in classes, or a family of functions (then `sampler` makes its tasks and
    there is nothing to `load`)."""

    name: str
    description: str
    splits: tuple[str, ...]
    load: Callable[..., ClassPool]  # (split, *, root, image_size, scheme, download, in_memory)
    downloads: bool = False  # whether `prepare` can fetch it
    schemes: tuple[str, ...] = ()  # the first is the default
    ink: bool = False  # light strokes on black, where a user's own scan is dark on light
    sampler: Callable[..., Sampler] | None = None  # of functions: (*, shots, queries, seed)

    @property
    def functions(self) -> bool:
        """Whether tasks are functions to fit, not images in classes."""
        return self.sampler is not None

    def prepare(self, root: Root = None, image_size: int | None = None) -> list[str]:
        """Download what can be, read every split and cache it. Returns a line per split; raises
        EpisodesError."""
        lines = []
        for split in self.splits:
            pool = self.load(split, root=root, image_size=image_size, download=self.downloads)
            lines.append(f"{split}: {pool.num_classes} classes, {len(pool.images)} images, {_shape(pool)}")
        return lines

    def check(self, root: Root = None, image_size: int | None = None) -> list[str]:
        """Read every split (from the cache if its source files haven't changed) and verify it.

        Completeness and split membership are checked by the loader; here that no two splits of a scheme share
        a class. Identical images are counted, not refused: the originals have some (miniImageNet even across
        splits). Returns a line per split and scheme; raises EpisodesError with what is wrong.
        """
        lines = []
        for scheme in self.schemes or (None,):
            homes: dict[str, str] = {}
            pixels: dict[int, str] = {}
            for split in (split for split in self.splits if split != "trainval"):
                if scheme == "lake" and split == "val":
                    continue
                pool = self.load(split, root=root, image_size=image_size, scheme=scheme)
                title = f"{split} ({scheme})" if scheme else split
                for name in pool.class_names:
                    if name in homes:
                        raise EpisodesError(
                            f"{self.name}: class {name!r} is in both {homes[name]} and {title}"
                        )
                    homes[name] = title
                here = {hash(image.tobytes()) for image in pool.images.numpy()}
                also = sorted({pixels[number] for number in here if number in pixels})
                shared = (
                    f", {sum(number in pixels for number in here)} also in {' and '.join(also)}"
                    if also
                    else ""
                )
                pixels.update(dict.fromkeys(here, title))
                lines.append(
                    f"{title}: {pool.num_classes} classes, {len(pool.images)} images "
                    f"({len(pool.images) - len(here)} of them copies of another{shared}), {_shape(pool)}"
                )
        return lines


def load(
    name: str,
    split: str = "train",
    *,
    root: Root = None,
    image_size: int | None = None,
    scheme: str | None = None,
    download: bool = False,
    in_memory: bool = True,
) -> ClassPool:
    """One split of a data set, built once and cached under the data root.

    name: a key of DATASETS ("omniglot", "miniimagenet", "strokes"), or "folder:PATH". root: the data root,
    see `data_root`. image_size: side in pixels, each data set's usual one by default. scheme: which division
    into splits. download: fetch what is missing, where there is a reliable source. in_memory: False maps the
    cache file instead. Raises EpisodesError when the name, split or scheme is unknown, or the data are
    absent, incomplete or damaged.
    """
    return dataset(name).load(
        split, root=root, image_size=image_size, scheme=scheme, download=download, in_memory=in_memory
    )


def dataset(name: str) -> DataSet:
    """The entry of this name; "folder:PATH" makes one for that folder. Raises EpisodesError for an unknown
    name."""
    if name.startswith("folder:"):
        return _folder(name)
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise EpisodesError(f"no data set {name!r}: {hint}There are {', '.join(DATASETS)} and folder:PATH")
    return DATASETS[name]


def _shape(pool: ClassPool) -> str:
    return " x ".join(map(str, pool.image_shape))


# The loaders import what they need when they are called: naming a data set costs nothing.
def _omniglot(split: str = "train", **options) -> ClassPool:
    from episodes.datasets.omniglot import load_omniglot

    return load_omniglot(split, **options)


def _miniimagenet(split: str = "train", **options) -> ClassPool:
    from episodes.datasets.miniimagenet import load_miniimagenet

    return load_miniimagenet(split, **options)


def _strokes(
    split: str = "train", *, image_size: int | None = None, scheme: str | None = None, **_
) -> ClassPool:
    from episodes.datasets.strokes import load_strokes

    if scheme is not None:
        raise EpisodesError(f"strokes has no schemes, got {scheme!r}")
    return load_strokes(split) if image_size is None else load_strokes(split, image_size)


def _criteria(
    split: str = "train", *, image_size: int | None = None, scheme: str | None = None, **_
) -> ClassPool:
    from episodes.datasets.criteria import load_criteria

    if scheme is not None:
        raise EpisodesError(f"criteria has no schemes, got {scheme!r}")
    return load_criteria(split) if image_size is None else load_criteria(split, image_size)


def _omniglot_criteria(split: str = "train", *, scheme: str | None = None, **options) -> ClassPool:
    from episodes.datasets.omniglot_criteria import load_omniglot_criteria

    if scheme is not None:
        raise EpisodesError(f"omniglot-criteria has no schemes, got {scheme!r}")
    return load_omniglot_criteria(split, **options)


def _sinusoids(*, shots: int, queries: int, seed: int) -> Sampler:
    from episodes.datasets.sinusoids import SinusoidSampler

    return SinusoidSampler(shots=shots, queries=queries, seed=seed)


def _mixture(kinds: int) -> Callable[..., Sampler]:
    def sampler(*, shots: int, queries: int, seed: int) -> Sampler:
        from episodes.datasets.functions import FunctionsSampler

        return FunctionsSampler(kinds, shots, queries, seed)

    return sampler


def _functions(name: str, description: str, sampler: Callable[..., Sampler]) -> DataSet:
    """The entry of a family of functions."""

    def no_pool(*_, **__) -> ClassPool:
        raise EpisodesError(
            f"{name} are drawn as they are asked for, there is no pool: use "
            f"episodes.dataset({name!r}).sampler(shots=10, queries=100, seed=0)"
        )

    return DataSet(name, f"{description} (no download, no pool)", (), no_pool, sampler=sampler)


def _folder(name: str) -> DataSet:
    from episodes.datasets.folder import SPLITS, load_folder, split_folders

    path = name.partition(":")[2]
    if not path.strip():
        raise EpisodesError(
            f"{name!r} names no folder: write folder:PATH, and folder:. for the one you are in"
        )

    def read(split: str = "train", *, download: bool = False, **options) -> ClassPool:
        return load_folder(path, split, **options)

    present = split_folders(expanded(path))
    return DataSet(name, "a folder of pictures per class", present or SPLITS, read)


DATASETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            "omniglot",
            "1,623 handwritten characters of 50 alphabets, 20 drawings each, 28 x 28 grey (MIT licence; "
            "downloaded)",
            ("train", "val", "trainval", "test"),
            _omniglot,
            downloads=True,
            schemes=("vinyals", "lake", "lake-val", "random"),
            ink=True,
        ),
        DataSet(
            "miniimagenet",
            "100 classes of 600 photographs, 84 x 84 RGB (ImageNet's terms: bring your own copy)",
            ("train", "val", "test"),
            _miniimagenet,
        ),
        DataSet(
            "strokes",
            "generated stroke characters, 28 x 28 grey (no download)",
            ("train", "val", "test"),
            _strokes,
            ink=True,
        ),
        DataSet(
            "criteria",
            "generated characters to sort by ink, paper, place, turn, size or character, 32 x 32 RGB "
            "(no download)",
            ("train", "val", "test"),
            _criteria,
        ),
        DataSet(
            "omniglot-criteria",
            "Omniglot to sort by character, alphabet or drawer, every split with alphabets of its own",
            ("train", "val", "test"),
            _omniglot_criteria,
            downloads=True,
            ink=True,
        ),
        _functions("sinusoids", "generated sine curves for regression", _sinusoids),
        _functions("functions-2", "generated sine curves and lines, with noise", _mixture(2)),
        _functions("functions-3", "these and quadratic curves", _mixture(3)),
        _functions("functions-5", "these, tanh and absolute values", _mixture(5)),
    )
}
