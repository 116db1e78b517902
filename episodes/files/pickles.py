"""The image pickles that go round for miniImageNet, read without letting them run anything."""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from episodes.errors import EpisodesError

_PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU]\d{1,4})")


class _Dtype:
    """Stands for a numpy.dtype of plain numbers or text: an array of objects could be made to hold anything.

    numpy's own `__setstate__` believes item sizes, flags and sub-arrays that no dtype has, and crashes on
    them later. Here the state must be the one that numpy itself writes for this dtype.
    """

    def __init__(self, code: str | bytes, *_: Any) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
            raise pickle.UnpicklingError(f"it has an array of dtype {code!r}, where numbers are enough")
        self.value = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, sub-array, names, fields, item size, alignment, flags)
        _, _, *stock = self.value.__reduce__()[2]
        version, order, *found = state if isinstance(state, tuple) and len(state) > 2 else (None, None)
        order = order.decode("latin1") if isinstance(order, bytes) else order
        if version != 3 or order not in ("<", ">", "|", "=") or found != stock:
            raise pickle.UnpicklingError(f"it has a dtype {self.value} of state {state!r:.200}")
        self.value = self.value.newbyteorder(order)  # type: ignore[arg-type]


class _Array:
    """Stands for a numpy array: empty until the state that follows fills it."""

    value = np.empty(0, np.int8)

    def __init__(self, *_: Any) -> None:  # _reconstruct's arguments: a class to call, a shape, a dtype
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _filled(raw, dtype, shape, "F" if fortran else "C")


def _filled(raw: Any, dtype: _Dtype, shape: Any, order: Any) -> np.ndarray:
    """The array of these bytes, read-only."""
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
        raise pickle.UnpicklingError("it has an array that isn't made of bytes and a dtype")
    return np.frombuffer(bytes(raw), dtype.value).reshape(shape, order=order)


def _from_buffer(raw: Any, dtype: _Dtype, shape: Any, order: Any, axes: Any = None) -> _Array:
    """Protocol 5's arrays. order "K": in the order of the axes' strides, as numpy writes what is permuted."""
    array = _Array()
    permuted = order == "K" and axes is not None
    array.value = _filled(raw, dtype, shape, "C" if permuted else order)
    if permuted:
        array.value = array.value.transpose(axes)
    return array


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    return _filled(_bytes(raw), dtype, (), "C")[()]


def _bytes(content: str | bytes = b"", encoding: str = "latin1") -> bytes:
    """How protocol 2 carries bytes. Not `bytes` itself: given a number, that allocates as much."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}, where bytes are always latin1")
    if not isinstance(content, str | bytes):
        raise pickle.UnpicklingError(f"it makes bytes of {type(content).__name__}")
    return content.encode("latin1") if isinstance(content, str) else content


class _Call:
    """A function that the pickle may call, and nothing else: a bare one's attributes could be set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise pickle.UnpicklingError("it changes a function, which data has no need of")


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays of numbers (as `_Array`) and plain containers, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy 1 and numpy 2 write different module names; Python 2 calls builtins __builtin__.
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        match (module, name):
            case ("numpy", "ndarray"):
                return "numpy.ndarray"  # only ever an argument, of _reconstruct
            case ("numpy", "dtype"):
                return _Call(_Dtype)
            case ("numpy.core.multiarray", "_reconstruct"):
                return _Call(_Array)
            case ("numpy.core.multiarray", "scalar"):
                return _Call(_scalar)
            case ("numpy.core.numeric", "_frombuffer"):
                return _Call(_from_buffer)
            case ("_codecs", "encode") | ("builtins", "bytearray"):
                return _Call(_bytes)
            case ("builtins", "range" | "xrange"):
                return _Call(range)
            case ("collections", "OrderedDict"):
                return _Call(dict)
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
    images, classes = _plain(content.get("image_data")), _text_keys(content.get("class_dict"))
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
    rows = {name: _row_numbers(members, len(images), path) for name, members in classes.items()}
    every = np.sort(np.concatenate(list(rows.values())))
    if len(every) == 0 or every[0] < 0 or every[-1] >= len(images) or (np.diff(every) == 0).any():
        raise EpisodesError(
            f"{path}: class_dict names rows twice or outside 0 to {len(images) - 1}: the file is damaged"
        )
    return images, rows


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


def _row_numbers(members: Any, most: int, path: Path) -> np.ndarray:
    """A class's rows: int64 [n]. EpisodesError unless they are a list of at most `most` integers."""
    members = _plain(members)
    try:
        # The length first: a range of a billion is a few bytes in the file.
        found = np.asarray(members) if len(members) <= most else None
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or not (found.dtype.kind in "iu" or found.size == 0):
        raise EpisodesError(f"{path}: class_dict should map class names to at most {most} row numbers each")
    return found.astype(np.int64).flatten()


def _text_keys(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        return {}
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()
    }
