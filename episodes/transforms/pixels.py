"""From uint8 rows to float32 images, in pieces that stay in the processor's cache."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.errors import EpisodesError

# Pixels handled at a time: their bytes, and four times as many of floats, fit a second-level cache.
_PIECE = 2**18
_ALIGNMENT = 64  # bytes, as torch's own memory


def empty(shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> NDArray:
    """Uninitialised memory for a tensor.

    numpy asks the system for large pages where torch doesn't: filling 100 MB for the first time takes half as
    long.
    """
    item = np.dtype(dtype).itemsize
    size, spare = math.prod(shape), _ALIGNMENT // item
    block = np.empty(size + spare, dtype)
    start = -block.ctypes.data % _ALIGNMENT // item
    return block[start : start + size].reshape(shape)


def gather(
    images: Tensor, rows: NDArray[np.int64], out: NDArray, turns: NDArray[np.int64] | None = None
) -> None:
    """Writes rows of uint8 images [N, C, H, W] to out [n, C, H, W]: as they are, or as float32 in [0, 1].

    rows: [n] in [0, N). turns: [n] quarter turns as in `rotate90`, or None.
    """
    source = images.numpy()
    if out.dtype == np.uint8 and turns is None:
        np.take(source, rows, 0, out=out, mode="clip")
        return
    size = max(_PIECE // max(math.prod(source.shape[1:]), 1), 1)
    scratch = np.empty((min(size, len(rows)), *source.shape[1:]), np.uint8)
    for start in range(0, len(rows), size):
        piece = slice(start, start + size)
        pixels = scratch[: len(rows[piece])]
        # The rows are in range; "clip" merely spares the copy by which "raise" protects `out`.
        np.take(source, rows[piece], 0, out=pixels, mode="clip")
        if turns is not None:
            pixels = _turned(pixels, turns[piece])
        if out.dtype == np.uint8:
            out[piece] = pixels
        else:
            np.divide(pixels, np.float32(255), out=out[piece])


def rotate90(images: Tensor, quarter_turns: Tensor | NDArray) -> Tensor:
    """Turns each image counter-clockwise by its number of quarter turns, as `torch.rot90` would.

    images: [B, C, H, H] of any dtype that numpy has, in the CPU's memory. quarter_turns: [B] integers (taken
    modulo 4). Returns [B, C, H, H]. Raises EpisodesError when the images aren't square or the counts don't
    match.
    """
    if images.dim() != 4 or images.shape[-1] != images.shape[-2]:
        raise EpisodesError(f"rotate90 needs square images [B, C, H, H], got {list(images.shape)}")
    turns = np.asarray(quarter_turns) % 4
    if turns.shape != tuple(images.shape[:1]):
        raise EpisodesError(
            f"rotate90 needs one number of quarter turns an image: got {list(turns.shape)} for {len(images)}"
        )
    return torch.from_numpy(_turned(images.numpy(), turns))


def _turned(images: NDArray, turns: NDArray) -> NDArray:
    """A copy of [B, C, H, H] with image b turned by turns[b] of 0 to 3 quarters."""
    turned = np.empty_like(images)
    for quarter in range(4):
        chosen = np.flatnonzero(turns == quarter)
        # Strided reads of small blocks and contiguous writes: faster than indexing the turned view.
        turned[chosen] = np.ascontiguousarray(np.rot90(images.take(chosen, 0), quarter, (-2, -1)))
    return turned
