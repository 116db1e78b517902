"""Named tensors and text in one safetensors file: nothing read from it runs as code."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from metafilm.errors import CheckpointError
from metafilm.storage.atomic import atomic_write


def write(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` and `metadata`, atomically; equal contents make equal files."""
    atomic_write(path, dumps(tensors, metadata))


def dumps(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A file's content, as `write` writes it."""
    # Copies: safetensors refuses tensors that share memory, and strides other than the default.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return sorted_header(safetensors.torch.save(copies, dict(metadata)))


def loads(content: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of what `dumps` gave. Raises CheckpointError, calling it `name`: damaged."""
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"{name} is damaged ({error}); save it again") from error
    return tensors, header.get("__metadata__", {})


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors on the CPU, metadata) of a file. Raises CheckpointError: none there, or damaged."""
    with _opened(path) as file:
        # not a dict: it has no other way to its names than keys()
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata alone, of a file of any size. Raises CheckpointError as `read` does."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise CheckpointError(f"{path}: the name is no UTF-8, and safetensors opens no others; rename it")
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}); make or download it again"
        ) from error


def sorted_header(content: bytes) -> bytes:
    """A safetensors file with its header in order: safetensors writes metadata in a random one, and equal
    weights should make equal files. Offsets count from the end of the header, so it may change its length."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def as_json(value: Any) -> str:
    """JSON text for the metadata. Raises TypeError unless reading it gives the same value back."""
    text = json.dumps(value)
    if json.loads(text) != value:
        raise TypeError("JSON would change them")
    return text
