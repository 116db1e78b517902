"""The image pickles that go round for miniImageNet, read without letting them run anything."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from episodes.errors import EpisodesError

# What numpy arrays of numbers need to be rebuilt, under numpy 1's and numpy 2's module names. None of these
# runs code from the file: they allocate an array and fill it with bytes.
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how protocol 2 carries bytes
    ("builtins", "bytearray"),
    ("__builtin__", "bytearray"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data has no need of")
        if module.startswith("numpy.core"):
            module = module.replace("numpy.core", "numpy._core" if hasattr(np, "_core") else "numpy.core")
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        return super().find_class(module, name)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}, where bytes are always latin1")
    return text.encode("latin1")


def read_image_pickle(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """mini-imagenet-cache-*.pkl: ({"image_data": uint8 [N, H, W, 3], "class_dict": {name: row numbers}}).

    Returns the images, and per class name its int64 row numbers. Keys may be str or bytes (Python 2's
    pickles). Only numpy arrays and plain containers are admitted. Raises EpisodesError when it holds anything
    else or is damaged.
    """
    raw = path.read_bytes()
    if raw.lstrip()[:1] == b"<":
        raise EpisodesError(f"{path} is a web page, not a pickle: the download failed; get the file again")
    try:
        # "bytes" keeps Python 2's strings as they are; array contents would otherwise be decoded as text.
        content = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        ImportError,
        IndexError,
        TypeError,
        ValueError,
    ) as error:
        raise EpisodesError(
            f"can't read {path}: {error}; get the file again from a source you trust"
        ) from error
    content = _text_keys(content)
    images, classes = content.get("image_data"), _text_keys(content.get("class_dict"))
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[3] != 3
    ):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise EpisodesError(f"{path}: image_data should be uint8 [N, H, W, 3], found {found}")
    if not classes:
        raise EpisodesError(f"{path}: class_dict should map class names to row numbers, found none")
    rows = {name: np.asarray(members, np.int64).flatten() for name, members in classes.items()}
    every = np.sort(np.concatenate(list(rows.values())))
    if len(every) == 0 or every[0] < 0 or every[-1] >= len(images) or (np.diff(every) == 0).any():
        raise EpisodesError(
            f"{path}: class_dict names rows twice or outside 0 to {len(images) - 1}: the file is damaged"
        )
    return images, rows


def _text_keys(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        return {}
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()
    }
