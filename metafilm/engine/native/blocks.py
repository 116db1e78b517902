"""The kernels of ``blocks.c`` on tensors: frozen norms with their activations, and inverted residual blocks.

Their weights are constants. Affines are a norm's own with the tasks' FiLM in them, ``[T, C]``.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from metafilm.engine.native.functions import at, function, room, split, zeros
from metafilm.engine.native.library import library

WIDE = 3  # vectors to a panel, as in blocks.c
AT_ONCE = (
    2**20
)  # bytes of the maps that are inside a block together: they should stay in a second-level cache

Affine = tuple[Tensor, Tensor]
"""Gain and shift, ``[T, C]`` float32 each."""


@dataclass(frozen=True)
class Shape:
    """What a block does to maps ``[B, C, H, W]``.

    Attributes:
        inside, outputs: features of the depthwise convolution and of the block.
        side, stride, top, left, height, width: of the depthwise convolution: kernel, stride, the padding
            before it, and its output.
        expand: whether a 1×1 convolution, norm and activation come first; else ``inside`` is C.
        skip: whether the input is added to the output.
        bounds: low and high ends of the first and of the second activation.
    """

    channels: int
    inside: int
    outputs: int
    side: int
    stride: int
    top: int
    left: int
    rows: int
    columns: int
    height: int
    width: int
    expand: bool
    skip: bool
    bounds: tuple[float, float, float, float]


class _Shape(ctypes.Structure):
    """``struct block``."""

    _fields_ = [
        *((name, ctypes.c_long) for name in "H W C E h w O side stride top left expand skip at_once".split()),
        *((name, ctypes.c_float) for name in "low1 high1 low2 high2".split()),
    ]


@dataclass(frozen=True)
class Weights:
    """A block's weights as the kernels read them, slab by slab, each way; None without ``expand``."""

    expand: Tensor | None
    expand_back: Tensor | None
    depthwise: Tensor
    depthwise_back: Tensor
    project: Tensor
    project_back: Tensor

    @classmethod
    def of(cls, expand: Tensor | None, depthwise: Tensor, project: Tensor) -> Weights:
        """Of convolutions' weights ``[E, C, 1, 1]``, ``[E, 1, k, k]``, ``[O, E, 1, 1]``."""
        first = None if expand is None else expand.detach().flatten(1).float()
        last = project.detach().flatten(1).float()
        taps = depthwise.detach().flatten(1).float().T
        return cls(
            None if first is None else _panels(first.T),
            None if first is None else _slabs(first),
            _panels(taps),
            _panels(taps.flip(0)),
            _slabs(last.T),
            _panels(last),
        )


@cache
def lanes() -> int:
    """Channels to a vector on this processor."""
    found = library()
    assert found is not None
    return found.lanes()


def _panels(matrix: Tensor) -> Tensor:
    """``[K, N]`` as panels of up to ``WIDE`` vectors' columns, each ``[K, columns]``, one after the other."""
    parts = _padded(matrix).split(lanes() * WIDE, 1)
    return torch.cat([part.reshape(-1) for part in parts])


def _slabs(matrix: Tensor) -> Tensor:
    """``[K, N]`` in slabs of rows, as long as panels are wide and filled up with zeros; each in panels."""
    rows = torch.nn.functional.pad(matrix, (0, 0, 0, -len(matrix) % lanes()))
    return torch.cat([_panels(part) for part in rows.split(lanes() * WIDE)])


def _padded(values: Tensor) -> Tensor:
    """The last axis filled up with zeros to whole vectors."""
    missing = -values.shape[-1] % lanes()
    return (torch.nn.functional.pad(values, (0, missing)) if missing else values).contiguous()


def _structure(shape: Shape, each: int, back: bool) -> tuple[_Shape, int]:
    """``struct block`` and the room it takes inside, in floats."""
    structure = _Shape(
        shape.rows, shape.columns, shape.channels, shape.inside, shape.height, shape.width, shape.outputs,
        shape.side, shape.stride, shape.top, shape.left, shape.expand, shape.skip, 0, *shape.bounds,
    )  # fmt: skip
    found = library()
    assert found is not None
    found.block_scratch.restype = ctypes.c_long
    found.block_scratch.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_int]
    return structure, found.block_scratch(ctypes.byref(structure), each, AT_ONCE, back)


def block(x: Tensor, shape: Shape, weights: Weights, affines: list[Affine]) -> tuple[Tensor, Tensor]:
    """The block's output and its last convolution's ``[B, O, h, w]``, of channels-last ``x``.

    Args:
        affines: three; the first is not read without ``expand``.
    """
    batch, tasks = len(x), len(affines[-1][0])
    each = batch // tasks
    like = torch.empty(batch, shape.height, shape.width, shape.outputs, dtype=x.dtype)
    out, last = like.permute(0, 3, 1, 2), torch.empty_like(like).permute(0, 3, 1, 2)
    pixels, small = shape.rows * shape.columns, shape.height * shape.width
    structure, inside = _structure(shape, each, False)
    found = [tuple(_padded(value) for value in pair) for pair in affines]
    run = function("block", x.dtype)

    def part(first: int, last_row: int) -> None:
        scratch = room(inside)
        run(
            ctypes.addressof(structure), at(x, first * pixels * shape.channels), _optional(weights.expand),
            *map(at, found[0]), at(weights.depthwise), *map(at, found[1]), at(weights.project),
            *map(at, found[2]), first, last_row - first, each, at(scratch),
            at(last, first * small * shape.outputs), at(out, first * small * shape.outputs),
        )  # fmt: skip

    split(part, batch, batch * shape.inside * pixels)
    return out, last


def block_gradient(
    grad: Tensor, x: Tensor, last: Tensor, shape: Shape, weights: Weights, affines: list[Affine]
) -> tuple[Tensor, list[Affine]]:
    """The gradients of :func:`block` in ``x`` and in the affines; ``last`` is what it gave."""
    batch, tasks = len(x), len(affines[-1][0])
    each = batch // tasks
    of_x = torch.empty_like(x)
    pixels, small = shape.rows * shape.columns, shape.height * shape.width
    structure, inside = _structure(shape, each, True)
    found = [tuple(_padded(value) for value in pair) for pair in affines]
    run = function("block_gradient", x.dtype)
    parts: list[tuple[int, list[Tensor]]] = []

    def part(first: int, last_row: int) -> None:
        scratch = room(inside)
        sums = [zeros(2, *pair[0].shape) for pair in found]
        run(
            ctypes.addressof(structure), at(grad, first * small * shape.outputs),
            at(x, first * pixels * shape.channels), at(last, first * small * shape.outputs),
            _optional(weights.expand), _optional(weights.expand_back), *map(at, found[0]),
            at(weights.depthwise), at(weights.depthwise_back), *map(at, found[1]), at(weights.project_back),
            at(found[2][0]), first, last_row - first, each, at(scratch),
            at(of_x, first * pixels * shape.channels),
            *(at(value) for pair in sums for value in pair),
        )  # fmt: skip
        parts.append((first, sums))

    split(part, batch, batch * shape.inside * pixels)
    ordered = [sums for _, sums in sorted(parts, key=lambda found: found[0])]
    totals = [torch.stack(column).sum(0).float() for column in zip(*ordered, strict=True)]
    sizes = [pair[0].shape[1] for pair in affines]
    return of_x, [(total[0, :, :size], total[1, :, :size]) for total, size in zip(totals, sizes, strict=True)]


def norm_act(x: Tensor, affine: Affine, bounds: tuple[float, float]) -> Tensor:
    """``clamp(gain ⊙ x + shift)`` of channels-last ``x [T·n, C, H, W]``."""
    gain, shift = (value.float().contiguous() for value in affine)
    tasks, channels = gain.shape
    out = torch.empty_like(x)
    pixels = x.numel() // (channels * tasks)
    run = function("norm_act", x.dtype)

    def part(first: int, last: int) -> None:
        of_tasks = tasks > 1
        begin, line = first * channels * (pixels if of_tasks else 1), first * channels * of_tasks
        run(
            at(x, begin), at(gain, line), at(shift, line), *bounds, last - first if of_tasks else 1,
            pixels if of_tasks else last - first, channels, at(out, begin),
        )  # fmt: skip

    split(part, tasks if tasks > 1 else pixels, x.numel())
    return out


def norm_act_gradient(
    grad: Tensor, x: Tensor, affine: Affine, bounds: tuple[float, float]
) -> tuple[Tensor, Affine]:
    """The gradients of :func:`norm_act` in ``x`` and in the affine."""
    gain, shift = (value.float().contiguous() for value in affine)
    tasks, channels = gain.shape
    of_x = torch.empty_like(x)
    pixels = x.numel() // (channels * tasks)
    run = function("norm_act_gradient", x.dtype)
    parts: list[tuple[int, Tensor]] = []

    def part(first: int, last: int) -> None:
        of_tasks = tasks > 1
        begin, line = first * channels * (pixels if of_tasks else 1), first * channels * of_tasks
        sums = zeros(2, last - first if of_tasks else 1, channels)
        run(
            at(grad, begin), at(x, begin), at(gain, line), at(shift, line), *bounds, sums.shape[1],
            pixels if of_tasks else last - first, channels, at(of_x, begin), at(sums[0]), at(sums[1]),
        )  # fmt: skip
        parts.append((first, sums))

    split(part, tasks if tasks > 1 else pixels, x.numel())
    ordered = [sums for _, sums in sorted(parts, key=lambda found: found[0])]
    total = (torch.cat(ordered, 1) if tasks > 1 else torch.stack(ordered).sum(0)).float()
    return of_x, (total[0], total[1])


def _optional(values: Tensor | None) -> int:
    return 0 if values is None else at(values)
