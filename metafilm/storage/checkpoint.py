"""A checkpoint's file: a run's whole state, with a checksum at its end, read without running code.

The file is PyTorch's own format and 73 bytes more, which PyTorch's reader passes over. A file without them,
as older versions wrote it, is read without the check.
"""

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from metafilm.errors import RunError
from metafilm.storage.atomic import atomic_write, unfinished

LABEL = b"\nsha256 "
SEAL = len(LABEL) + 64 + 1  # the label, 64 hexadecimal digits, the end of the line


def save(path: Path, state: Mapping[str, Any], previous: Path | None = None) -> None:
    """Replace the file by ``state``: tensors, numbers, strings and containers of these only.

    Args:
        previous: where the file that is there goes, once the new one is whole; None: nowhere.
    """

    def content(file: BinaryIO) -> None:
        summing = _Summing(file)
        try:
            torch.save(dict(state), summing)  # type: ignore[arg-type]
        except RuntimeError:  # PyTorch's, that its archive has no end, may hide why: a full disk
            if summing.refused is not None:
                raise summing.refused from None
            raise
        file.write(LABEL + summing.sum.hexdigest().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        if previous is not None and path.is_file():
            _keep(path, previous)

    atomic_write(path, content)


def load(path: Path) -> dict[str, Any]:
    """The state on the CPU. Raises RunError: unreadable, changed since it was written, or no run's state."""
    try:
        with path.open("rb") as file:
            _check_sum(file)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except RunError as error:
        raise RunError(f"{path} is damaged ({error})") from None
    except pickle.UnpicklingError as error:  # what PyTorch says here advises to run what is in the file
        raise RunError(
            f"{path} is damaged (it holds more than tensors, numbers and text, which is never loaded)"
        ) from error
    except Exception as error:  # torch raises whatever the bytes lead it to
        raise RunError(f"{path} is damaged (PyTorch can't read it: {type(error).__name__})") from error
    if found := problems(state):
        raise RunError(f"{path} is no state of a run ({'; '.join(found)})")
    return state


def problems(state: Any) -> list[str]:
    """What a run's state lacks or has of another kind, a line each."""
    if not isinstance(state, dict):
        return [f"it holds {type(state).__name__}, expected a dict of states"]
    found = []
    required, more = (BEFORE, MORE_BEFORE) if "classifier" in state else (CONTENTS, MORE)
    for name, (fits, expected) in {**required, **more}.items():
        if name not in state:
            if name in required:
                found.append(f"{name!r} is missing")
        elif not fits(state[name]):
            found.append(f"{name!r} is {type(state[name]).__name__}, expected {expected}")
    return found


def _tensors(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, Tensor) for item in value.values())


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _optimiser(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("state"), dict) and "param_groups" in value


def _average(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and _tensors(value.get("values")) and _count(value.get("updates"))
    )


def _chunks(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_count(item) and item for item in value)


CONTENTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "learner": (_tensors, "a dict of tensors"),
    "optimiser": (_optimiser, "a dict with 'state' and 'param_groups'"),
    "average": (_average, "None, or a dict of tensors 'values' and a count 'updates'"),
    "iteration": (_count, "a whole number from 0"),
    "best": (lambda value: value is None or _number(value), "a number or None"),
    "best_iteration": (_count, "a whole number from 0"),
    "seconds": (_number, "a number"),
    "chunks": (_chunks, "two whole numbers from 1"),
}

# of the stage before the outer loop, whose steps count up to 0
BEFORE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "classifier": (_tensors, "a dict of tensors"),
    "iteration": (lambda value: type(value) is int and value <= 0, "a whole number up to 0"),
    **{name: CONTENTS[name] for name in ("learner", "optimiser", "seconds")},
}

# what only runs of certain settings have
MORE_BEFORE = {"average": CONTENTS["average"]}
MORE: dict[str, tuple[Callable[[Any], bool], str]] = {"plain": (_tensors, "a dict of tensors")}


class _Summing:
    """A file to write to that sums up what goes by."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sum = file, hashlib.sha256()
        self.refused: OSError | None = None

    def write(self, content: bytes) -> int:
        self.sum.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.refused = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _check_sum(file: BinaryIO) -> None:
    """Raises RunError where the file has a checksum and is not what was summed."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - SEAL, 0))
    seal = file.read()
    if not seal.startswith(LABEL) or len(seal) != SEAL:
        return
    file.seek(0)
    summed, left = hashlib.sha256(), size - SEAL
    while left:
        part = file.read(min(left, 2**20))
        summed.update(part)
        left -= len(part)
    if summed.hexdigest().encode() != seal[len(LABEL) : -1]:
        raise RunError("its checksum does not fit: some of its bytes have changed since it was written")


def _keep(path: Path, previous: Path) -> None:
    """Have ``previous`` name the file that ``path`` names, so that it outlives being replaced there."""
    beside = unfinished(previous)
    try:
        os.link(path, beside)
    except OSError:  # a file system without links
        os.replace(path, previous)
        return
    os.replace(beside, previous)
    beside.unlink(missing_ok=True)  # it stays where both named one file already
