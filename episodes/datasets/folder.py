"""Your own pictures: a folder per class, any size and mode."""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import torch

from episodes.datasets.cache import cached_pool, fingerprint
from episodes.datasets.splits import seeded_split
from episodes.errors import EpisodesError
from episodes.files.images import SUFFIXES, is_named_as_picture, read_image
from episodes.files.root import data_root, expanded, printable
from episodes.pool import ClassPool
from episodes.progress import track

__all__ = ["SUFFIXES", "load_folder", "read_class_folders", "read_image"]

SPLITS = ("train", "val", "test")
FRACTIONS = {"train": 0.64, "val": 0.16, "test": 0.20}  # miniImageNet's proportions


def load_folder(
    path: str | os.PathLike,
    split: str = "train",
    *,
    root: str | os.PathLike | None = None,
    image_size: int | None = None,
    scheme: str | None = None,
    in_memory: bool = True,
    channels: int = 3,
    invert: bool = False,
) -> ClassPool:
    """One split of a folder of pictures: uint8 [N, channels, size, size].

    PATH/{train,val,test}/<class>/ when class folders lie in PATH/train and the split's folder is there;
    otherwise PATH/<class>/, and the classes are divided 64/16/20 % by seed. image_size: 84 by default; see
    `read_image` for how pictures are brought to it. scheme: "split:SEED" chooses another division than seed
    0's, "all" gives every class of PATH/<class>/ whatever the split. Unreadable pictures are named in a
    warning and skipped; a later load from the cache says how many there were. Raises EpisodesError when there
    is nothing to read, or when a class is in two split folders.
    """
    base = expanded(path).absolute()
    if not base.is_dir():
        raise EpisodesError(f"no folder {base}: give folder:PATH with a folder of pictures per class in PATH")
    if split not in SPLITS:
        raise EpisodesError(f"split {split!r} of {base}: choose one of {', '.join(SPLITS)}")
    kind, colon, seed = (scheme or "split").partition(":")
    if kind not in ("split", "all") or (colon and (kind != "split" or not seed.isdecimal())):
        raise EpisodesError(f'scheme {scheme!r} of a folder: choose "split", "split:SEED" or "all"')
    listed, home = _choose(base, split, kind, int(seed or 0))
    size = 84 if image_size is None else int(image_size)
    if size < 1:
        raise EpisodesError(f"image_size is {image_size}: give the side in pixels, 84 for instance")
    files = [file for _, members in listed for file in members]
    key = {
        "name": base.name,
        # In the file's name, so that two folders of one name don't take each other's cache for outdated.
        "place": hashlib.sha256(os.fsencode(base)).hexdigest()[:8],
        "split": split,
        "size": size,
        "channels": channels,
        "invert": invert,
        # In the file's name likewise; seed 0's division has none there.
        **({} if (kind, int(seed or 0)) == ("split", 0) else {"scheme": f"{kind}{seed}"}),
        "fingerprint": fingerprint(files, home),
    }

    read_now = []

    def build() -> ClassPool:
        images, labels, names, _, _ = _read(listed, channels, size, invert)  # which names what it skips
        read_now.append(True)
        return ClassPool.from_arrays(images, labels, names, None, base.name, split)

    pool = cached_pool(data_root(root), key, build, in_memory)
    if not read_now and (skipped := len(files) - len(pool.images)):
        warnings.warn(
            f"{skipped} of {len(files)} pictures of {base.name} {split} could not be read and are left out; "
            "they were named when the others were read first: mend them, or take them away",
            stacklevel=2,
        )
    return pool


def read_class_folders(
    directory: str | os.PathLike, channels: int = 3, size: int = 84, invert: bool = False
) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...], list[Path], list[tuple[Path, str]]]:
    """All pictures of directory/<class>/: (images, labels, class_names, paths, skipped).

    images: uint8 [N, channels, size, size], class by class in the order of the sorted names. labels: int64
    [N]. paths: their N files. skipped: (file, reason) of the unreadable ones, of pictures beside the folders
    and of folders without pictures, which are all named in a warning too. Raises EpisodesError when there are
    no class folders or a class has no readable picture.
    """
    base = expanded(directory)
    if not base.is_dir():
        raise EpisodesError(f"no folder {base}: give one that holds a folder of pictures per class")
    images, labels, names, paths, skipped = _read(_list(base), channels, size, invert)
    for path, reason in (left := _left_out(base)):
        warnings.warn(f"skipped {printable(path)}: {reason}", stacklevel=2)
    skipped += left
    return torch.from_numpy(images), torch.from_numpy(labels), names, paths, skipped


def _choose(base: Path, split: str, kind: str, seed: int) -> tuple[list[tuple[str, list[Path]]], Path]:
    """The classes of a split with their files, and the folder their names are relative to."""
    if kind == "split" and (present := split_folders(base)):
        homes: dict[str, str] = {}
        for part in present:
            for name, _ in _list(base / part):
                if name in homes:
                    raise EpisodesError(
                        f"class {name!r} is in both {base / homes[name]} and {base / part}: keep it in one"
                    )
                homes[name] = part
        if split not in present:
            raise EpisodesError(
                f"{base} has a folder train but none named {split}: add it, or choose another split"
            )
        return _list(base / split), base
    listed = _list(base)
    if kind == "all":
        return listed, base
    sizes = {part: round(fraction * len(listed)) for part, fraction in FRACTIONS.items() if part != "train"}
    sizes = {"train": len(listed) - sum(sizes.values()), **sizes}
    chosen = set(seeded_split([name for name, _ in listed], sizes, seed)[split])
    if not chosen:
        raise EpisodesError(
            f"{base} has {len(listed)} classes, too few for a {split} split of their own: "
            f'make {base}/train, val and test yourself, or choose scheme="all"'
        )
    return [(name, files) for name, files in listed if name in chosen], base


def split_folders(base: Path) -> tuple[str, ...]:
    """The splits that have a folder of their own; none where no class folders lie in `base`/train, which is
    then a class itself."""
    train = base / "train"
    if not train.is_dir() or not any(_pictures(path) for path in _visible(train) if path.is_dir()):
        return ()
    return tuple(part for part in SPLITS if (base / part).is_dir())


def _list(base: Path) -> list[tuple[str, list[Path]]]:
    """(class, its picture files), sorted; folders without pictures that can be read are left out.

    What has a picture's name is listed whatever it is, and named as unreadable later. A class that would be
    missed in silence, because its link leads nowhere, is an EpisodesError; so is a name that is no UTF-8,
    since class names are written into weights and records.
    """
    classes = []
    for folder in _visible(base):
        if folder.is_symlink() and not folder.exists() and not is_named_as_picture(folder):
            raise EpisodesError(f"{printable(folder)} is a link that leads nowhere: mend it or take it away")
        if not folder.is_dir():
            continue
        files = _pictures(folder)
        if files and printable(folder.name) != folder.name:
            raise EpisodesError(f"{printable(folder)}: the class's name is no UTF-8; rename the folder")
        if files:
            classes.append((folder.name, files))
    if not classes:
        raise EpisodesError(
            f"{base} holds no folders of pictures ({', '.join(SUFFIXES)}): make one per class, "
            f"{base}/cat/1.jpg and so on"
        )
    return classes


def _left_out(base: Path) -> list[tuple[Path, str]]:
    """What somebody may have meant to be read: pictures in no class's folder, and folders without any."""
    found = []
    for path in _visible(base):
        if not path.is_dir():
            if is_named_as_picture(path):
                found.append((path, "it lies in no class's folder"))
        elif not _pictures(path):
            found.append((path, f"no pictures lie in it ({', '.join(SUFFIXES)})"))
    return found


def _pictures(folder: Path) -> list[Path]:
    """What has a picture's name, sorted; none where all are of kinds that are not read, as the sources beside
    a data set's pictures are."""
    found = [path for path in _visible(folder) if is_named_as_picture(path)]
    return found if any(path.suffix.lower() in SUFFIXES for path in found) else []


def _visible(folder: Path) -> list[Path]:
    """What lies in it and isn't hidden (.name), sorted."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read(
    listed: list[tuple[str, list[Path]]], channels: int, size: int, invert: bool
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], list[Path], list[tuple[Path, str]]]:
    images, labels, paths = [], [], []
    skipped: list[tuple[Path, str]] = []
    every = [(label, file) for label, (_, files) in enumerate(listed) for file in files]
    for label, file in track(every, "reading pictures"):
        try:
            images.append(read_image(file, channels, size, invert))
        except EpisodesError:
            raise
        except Exception as error:  # decoders raise whatever they like on a damaged file
            skipped.append((file, f"{type(error).__name__}: {error}"))
            continue
        labels.append(label)
        paths.append(file)
    if skipped:
        named = "\n  ".join(f"{printable(file)}: {reason}" for file, reason in skipped[:10])
        more = f"\n  and {len(skipped) - 10} more" if len(skipped) > 10 else ""
        warnings.warn(f"{len(skipped)} unreadable pictures were skipped:\n  {named}{more}", stacklevel=3)
    names = tuple(name for name, _ in listed)
    readable = set(labels)
    for label, name in enumerate(names):
        if label not in readable:
            raise EpisodesError(
                f"class {name!r} has no readable picture: replace its files or take the folder away"
            )
    return np.stack(images), np.array(labels, np.int64), names, paths, skipped
