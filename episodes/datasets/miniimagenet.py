"""miniImageNet: 100 classes of 600 photographs at 84 x 84 (Vinyals et al. 2016; split of Ravi and Larochelle
2017)."""

import os
from pathlib import Path

import numpy as np

from episodes.datasets.cache import cached_pool, fingerprint
from episodes.datasets.splits import published_split
from episodes.errors import EpisodesError
from episodes.files.root import data_root
from episodes.pool import ClassPool

SPLITS = ("train", "val", "test")
IMAGES = 600  # of each class
_WNID = 9  # a WordNet id, "n01532829", opens each file's name
_SUFFIXES = (".jpg", ".jpeg", ".png")


def load_miniimagenet(
    split: str = "train",
    *,
    root: str | os.PathLike | None = None,
    image_size: int | None = None,
    scheme: str | None = None,
    download: bool = False,
    in_memory: bool = True,
) -> ClassPool:
    """One split of miniImageNet: uint8 [N, 3, size, size], classes named by WordNet id, sorted; 64 train, 16
    val, 20 test.

    image_size: 84 by default; for others the shorter side is resized (antialiased, bilinear) and the centre
    cropped. Reads, under the data root's miniimagenet/ (or mini-imagenet/, mini_imagenet/, or the root
    itself), whichever is there:

    1. {train,val,test}.csv with header filename,label beside images/, or beside <split>/<wnid>/ folders;
    2. class folders <split>/<wnid>/*.jpg;
    3. mini-imagenet-cache-{train,val,test}.pkl (str or bytes keys; learn2learn's name -validation too).

    The whole split is read into memory once and kept under the data root's .cache. Raises EpisodesError when
    nothing is there (with what to put where: the images' terms leave no reliable download), when a class
    belongs to another split or has not its 600 pictures, or a file is missing or unreadable.
    """
    if split not in SPLITS:
        raise EpisodesError(f"miniImageNet split {split!r}: choose one of {', '.join(SPLITS)}")
    if scheme not in (None, "ravi"):
        raise EpisodesError(f'miniImageNet scheme {scheme!r}: there is one, "ravi"')
    size = 84 if image_size is None else int(image_size)
    if size < 1:
        raise EpisodesError(f"image_size is {image_size}: give the side in pixels, 84 for instance")
    folder = data_root(root)
    source = find_split(folder, split)
    if source is None:
        raise EpisodesError(_absent(folder, split, download))
    if source.suffix == ".pkl":
        files, sources = None, [source]
    else:
        files = list_csv(source, split) if source.suffix == ".csv" else list_folders(source)
        _check_classes({wnid: len(paths) for wnid, paths in files}, split, source)
        sources = [path for _, paths in files for path in paths]
    key = {"name": "miniimagenet", "split": split, "size": size, "fingerprint": fingerprint(sources, folder)}

    def build() -> ClassPool:
        if files is None:
            from episodes.files.pickles import read_image_pickle

            images, classes = read_image_pickle(source)
            _check_classes({wnid: len(rows) for wnid, rows in classes.items()}, split, source)
            return pool_from_arrays(images, classes, size, split)
        from episodes.files.images import read_image

        return ClassPool.from_files(
            files, lambda path: read_image(path, 3, size), None, "miniimagenet", split
        )

    return cached_pool(folder, key, build, in_memory)


def find_split(root: Path, split: str) -> Path | None:
    """The CSV file, the class-folder parent or the pickle that holds a split; None when there is none."""
    other = {"val": "validation"}.get(split, split)
    for base in (root / "miniimagenet", root / "mini-imagenet", root / "mini_imagenet", root):
        csv = base / f"{split}.csv"
        if base != root and csv.is_file() and ((base / "images").is_dir() or (base / split).is_dir()):
            return csv
        if base != root and (base / split).is_dir():
            return base / split
        for name in (split, other):
            if (pickle := base / f"mini-imagenet-cache-{name}.pkl").is_file():
                return pickle
    return None


def list_csv(csv_file: Path, split: str) -> list[tuple[str, list[Path]]]:
    """(class, its files) by class name, from a table with header filename,label. Raises EpisodesError on a
    missing file, and on a table that is no UTF-8 or no table."""
    import csv

    try:
        return _listed(csv_file, split)
    except (UnicodeDecodeError, csv.Error) as error:
        raise EpisodesError(f"can't read {csv_file}: {error}; get the table again") from error


def _listed(csv_file: Path, split: str) -> list[tuple[str, list[Path]]]:
    import csv

    base = csv_file.parent
    here = {place: _names(base / place) for place in ("images", split) if (base / place).is_dir()}
    classes: dict[str, list[Path]] = {}
    with csv_file.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        if table.fieldnames is None or not {"filename", "label"} <= set(table.fieldnames):
            raise EpisodesError(f"{csv_file} has columns {table.fieldnames}, expected filename,label")
        for row in table:
            name, wnid = row["filename"] or "", row["label"] or ""
            if not name or wnid != name[:_WNID]:
                raise EpisodesError(
                    f"{csv_file} line {table.line_num}: label {wnid!r} of file {name!r} isn't the first "
                    f"{_WNID} characters "
                    "of its name: get the table again"
                )
            for place, names in here.items():
                nested = f"{wnid}/{name}"
                if name in names or nested in names:
                    classes.setdefault(wnid, []).append(base / place / (name if name in names else nested))
                    break
            else:
                raise EpisodesError(
                    f"{csv_file} line {table.line_num} lists {name}, which is not in "
                    f"{' or '.join(str(base / place) for place in here)}: unpack the images again"
                )
    return [(wnid, sorted(paths)) for wnid, paths in sorted(classes.items())]


def list_folders(parent: Path) -> list[tuple[str, list[Path]]]:
    """(class, its files) by class name, from <wnid>/ folders of pictures."""
    classes = []
    for folder in sorted(
        path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")
    ):
        files = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")  # macOS leaves ._NAME
        )
        if not files:
            raise EpisodesError(f"{folder} holds no .jpg or .png picture: fill it or take it away")
        classes.append((folder.name, files))
    if not classes:
        raise EpisodesError(f"{parent} holds no class folders: expected {parent}/n01532829/*.jpg and so on")
    return classes


def pool_from_arrays(images: np.ndarray, classes: dict[str, np.ndarray], size: int, split: str) -> ClassPool:
    """A pool from uint8 [N, H, W, 3] and the row numbers of each class, resized when `size` differs."""
    from PIL import Image

    names = sorted(classes)
    labels = np.repeat(np.arange(len(names)), [len(classes[name]) for name in names])
    ordered = images[np.concatenate([classes[name] for name in names])]
    if ordered.shape[1:3] != (size, size):
        from episodes.files.images import fit

        ordered = np.stack([np.asarray(fit(Image.fromarray(image), size)) for image in ordered])
    channels_first = np.ascontiguousarray(ordered.transpose(0, 3, 1, 2))
    return ClassPool.from_arrays(channels_first, labels, names, None, "miniimagenet", split)


def _names(folder: Path) -> set[str]:
    """Files of a folder, and of its class folders as "wnid/file"."""
    names = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if os.path.isdir(entry.path):  # entry.is_dir() raises on a link to itself
                names.update(f"{entry.name}/{name}" for name in os.listdir(entry.path))
            else:
                names.add(entry.name)
    return names


def _check_classes(found: dict[str, int], split: str, source: Path) -> None:
    """EpisodesError unless these are exactly the split's classes, and so many pictures of each."""
    published = published_split("miniimagenet_ravi")
    for name in sorted(set(found) - set(published[split])):
        home = next((part for part in SPLITS if name in published[part]), None)
        where = f"belongs to {home}" if home else "is no class of miniImageNet"
        raise EpisodesError(
            f"{source} has class {name} in {split}, but in Ravi and Larochelle's split it {where}: "
            "accuracies on another split aren't comparable; get the standard lists"
        )
    if missing := sorted(set(published[split]) - set(found)):
        raise EpisodesError(
            f"{source} lacks {len(missing)} of the {len(published[split])} classes of {split}, "
            f"{missing[0]} for one: "
            "the copy is incomplete, unpack it again"
        )
    if odd := sorted(name for name, count in found.items() if count != IMAGES):
        raise EpisodesError(
            f"{source} has {found[odd[0]]} pictures of {odd[0]} in {split}, where there are {IMAGES} of each "
            f"class ({len(odd)} classes have another number): the copy is incomplete, unpack it again"
        )


def _absent(root: Path, split: str, download: bool) -> str:
    base = root / "miniimagenet"
    opening = (
        "miniImageNet can't be downloaded: ImageNet's terms leave no reliable source. " if download else ""
    )
    return (
        f"{opening}No miniImageNet {split} split under {root}. Get the data set from somebody who may "
        "share it and place one "
        f"of: {base}/{{train,val,test}}.csv with {base}/images/*.jpg; or "
        f"{base}/{{train,val,test}}/<wnid>/*.jpg; or "
        f"{base}/mini-imagenet-cache-{{train,val,test}}.pkl. Or point --data-root or $METAFILM_DATA to "
        "where it is"
    )
