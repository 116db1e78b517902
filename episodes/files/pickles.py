"""The image pickles that go round for miniImageNet, read without letting them run anything."""

import io
import pickle
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from episodes.errors import EpisodesError

_PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU]\d{1,4})")


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 carries bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}, where bytes are always latin1")
    return text.encode("latin1")


def _dtype(code: str | bytes, *_: Any) -> np.dtype:
    """numpy.dtype for plain numbers and text only: an array of objects could be made to hold anything."""
    text = code.decode("latin1") if isinstance(code, bytes) else code
    if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
        raise pickle.UnpicklingError(f"it has an array of dtype {code!r}, where numbers are enough")
    return np.dtype(text, copy=True)


def _reconstruct(*_: Any) -> np.ndarray:
    """An empty array, for the state that follows to fill; numpy's own would call what the file names."""
    return np.ndarray((0,), np.int8)


def _numpy(name: str) -> Any:
    """numpy's own function under the name its release gives it."""
    module, _, attribute = name.rpartition(".")
    for core in ("_core", "core"):
        try:
            return getattr(import_module(f"numpy.{core}.{module}"), attribute)
        except ImportError:
            continue
    raise pickle.UnpicklingError(f"this numpy has no {name}")


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays of numbers and plain containers, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy 1 and numpy 2 write different module names; Python 2 calls builtins __builtin__.
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        match (module, name):
            case ("numpy", "ndarray"):
                return "numpy.ndarray"  # only ever an argument, of _reconstruct
            case ("numpy", "dtype"):
                return _dtype
            case ("numpy.core.multiarray", "_reconstruct"):
                return _reconstruct
            case ("numpy.core.multiarray", "scalar"):
                return _numpy("multiarray.scalar")
            case ("numpy.core.numeric", "_frombuffer"):
                return _numpy("numeric._frombuffer")
            case ("_codecs", "encode"):
                return _latin1
            case ("builtins", "bytearray"):
                return bytearray
            case ("builtins", "range" | "xrange"):
                return range
            case ("collections", "OrderedDict"):
                return dict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data has no need of")


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
    except Exception as error:  # a damaged stream of opcodes fails in any way it likes
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
