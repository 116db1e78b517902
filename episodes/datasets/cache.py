"""Pools built once and kept on disk: pixels as .npy beside a JSON description, checked when they are read."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from episodes.files.root import write_atomically
from episodes.pool import ClassPool

# Part of every key: raise it when the way pictures become pixels changes.
PREPROCESSING = 1
_LONGEST = 80  # letters of a file's name before its digest


def fingerprint(files: Iterable[Path], base: Path) -> str:
    """A hash of the names, sizes and times of the source files: other files, another cache.

    A link that leads nowhere counts as absent: whoever reads the file says what is wrong with it.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            status = path.stat()
            state = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError:
            state = "absent"
        # fsencode, since a name needn't be UTF-8
        digest.update(os.fsencode(path.relative_to(base).as_posix()) + f"\0{state}\n".encode())
    return digest.hexdigest()


def cached_pool(
    root: Path, key: dict[str, Any], build: Callable[[], ClassPool], in_memory: bool = True
) -> ClassPool:
    """The pool of this key from `root`/.cache, built by `build` when it isn't there or is damaged.

    key: what the pixels depend on, JSON values; must hold "name", "split" and "fingerprint". in_memory: False
    maps the file instead of reading it. When the folder can't be written, warns and returns the pool without
    keeping it.
    """
    key = {**key, "preprocessing": PREPROCESSING}
    name = str(key["name"])
    rest = "".join(f"-{key[part]}" for part in key if part not in ("name", "fingerprint", "preprocessing"))
    # The name alone is shortened: what else stands in it tells one split's file from another's.
    stem = name[: max(_LONGEST - len(rest), 1)] + rest
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = root / ".cache" / f"{stem}-{digest}.npy"
    pool = _read(path, key, in_memory)
    if pool is None:
        pool = build()
        try:
            _write(path, key, pool)
        except OSError as error:
            warnings.warn(
                f"can't keep {path} ({error}): the data set will be read anew next time", stacklevel=2
            )
            return pool
        for old in path.parent.glob(f"{stem}-*"):  # of source files that have changed since
            rest = old.name.removeprefix(f"{stem}-")
            if old.stem != path.stem and len(rest) in (16 + len(".npy"), 16 + len(".json")):
                old.unlink(missing_ok=True)
        if not in_memory:
            pool = _read(path, key, in_memory) or pool
    return pool


def _write(path: Path, key: dict[str, Any], pool: ClassPool) -> None:
    images = pool.images.numpy()
    description = {
        "key": key,
        "shape": list(images.shape),
        "sha256": hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
        "offsets": pool.offsets.tolist(),
        "class_names": list(pool.class_names),
        "groups": None if pool.groups is None else pool.groups.tolist(),
        "group_names": list(pool.group_names),
        "name": pool.name,
        "split": pool.split,
    }
    write_atomically(path, lambda file: np.save(file, images, allow_pickle=False))
    # The description comes second and carries the hash of the pixels, so that a pair from two writers is
    # noticed.
    write_atomically(path.with_suffix(".json"), lambda file: file.write(json.dumps(description).encode()))


def _read(path: Path, key: dict[str, Any], in_memory: bool) -> ClassPool | None:
    """The pool, or None when there is none; warns when what is there is damaged."""
    if not path.exists() or not path.with_suffix(".json").exists():
        return None
    try:
        description = json.loads(path.with_suffix(".json").read_text())
        # "c", copy on write: a tensor over a read-only array could be written to, and torch warns of it.
        images = np.load(path, mmap_mode=None if in_memory else "c", allow_pickle=False)
        if (
            description["key"] != key
            or list(images.shape) != description["shape"]
            or images.dtype != np.uint8
        ):
            raise ValueError(f"holds {images.dtype} {images.shape}, described as {description['shape']}")
        if hashlib.sha256(images.data).hexdigest() != description["sha256"]:
            raise ValueError("the pixels don't have the hash they were written with")
        groups = description["groups"]
        return ClassPool(
            torch.from_numpy(images),
            torch.tensor(description["offsets"]),
            tuple(description["class_names"]),
            None if groups is None else torch.tensor(groups),
            tuple(description["group_names"]),
            description["name"],
            description["split"],
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        warnings.warn(f"the cache {os.fspath(path)} is damaged ({error}): building it anew", stacklevel=3)
        return None
