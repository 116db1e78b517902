"""The kernels of ``blocks.c`` on tensors: frozen norms with their activations, and inverted residual blocks.

Their weights are constants. Affines are a norm's own with the tasks' FiLM in them, ``[T, C]``.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor

from metafilm.engine.native.functions import at, function, room, split, zeros
from metafilm.engine.native.library import library

WIDE = 3  # vectors to a panel, as in blocks.c
AT_ONCE = 2**20  # bytes of the maps inside a block together: they should stay in a second-level cache

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


@lru_cache(maxsize=1024)
def _structure(shape: Shape, each: int, back: bool, at_once: int) -> tuple[_Shape, int]:
    """``struct block`` and the room it takes inside, in floats; made once, since it is only read."""
    structure = _Shape(
        shape.rows, shape.columns, shape.channels, shape.inside, shape.height, shape.width, shape.outputs,
        shape.side, shape.stride, shape.top, shape.left, shape.expand, shape.skip, 0, *shape.bounds,
    )  # fmt: skip
    found = library()
    assert found is not None
    found.block_scratch.restype = ctypes.c_long
    found.block_scratch.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_int]
    return structure, found.block_scratch(ctypes.byref(structure), each, at_once, back)


def filled(affine: Affine, tasks: int) -> Affine:
    """An affine ``[T, C]`` or ``[1, C]`` of T tasks, as the block's kernels read it: whole vectors."""
    gain, shift = affine
    if len(gain) != tasks:
        gain, shift = gain.expand(tasks, -1), shift.expand(tasks, -1)
    return _padded(gain), _padded(shift)


def block(x: Tensor, shape: Shape, weights: Weights, affines: list[Affine | None]) -> tuple[Tensor, Tensor]:
    """The block's output and its last convolution's ``[B, O, h, w]``, of channels-last ``x``.

    Args:
        affines: three, :func:`filled`; the first is None without ``expand``.
    """
    batch, tasks = len(x), _tasks(affines)
    each = batch // tasks
    like = torch.empty(batch, shape.height, shape.width, shape.outputs, dtype=x.dtype)
    out, last = like.permute(0, 3, 1, 2), torch.empty_like(like).permute(0, 3, 1, 2)
    pixels, small = shape.rows * shape.columns, shape.height * shape.width
    structure, inside = _structure(shape, each, False, AT_ONCE)
    first_one, second, third = map(_pointers, affines)
    run = function("block", x.dtype)

    def part(first: int, last_row: int) -> None:
        scratch = room(inside)
        run(
            ctypes.addressof(structure), at(x, first * pixels * shape.channels), _optional(weights.expand),
            *first_one, at(weights.depthwise), *second, at(weights.project), *third,
            first, last_row - first, each, at(scratch),
            at(last, first * small * shape.outputs), at(out, first * small * shape.outputs),
        )  # fmt: skip

    split(part, batch, batch * shape.inside * pixels)
    return out, last


def block_gradient(
    grad: Tensor, x: Tensor, last: Tensor, shape: Shape, weights: Weights, affines: list[Affine | None]
) -> tuple[Tensor, list[Affine | None]]:
    """The gradients of :func:`block` in ``x`` and in the affines; ``last`` is what it gave."""
    batch, tasks = len(x), _tasks(affines)
    each = batch // tasks
    of_x = torch.empty_like(x)
    pixels, small = shape.rows * shape.columns, shape.height * shape.width
    structure, inside = _structure(shape, each, True, AT_ONCE)
    first_one, second, (third, _) = map(_pointers, affines)
    # all sums in one piece: gain's, then shift's, of each affine
    sizes = [0 if pair is None else pair[0].numel() for pair in affines]
    offsets = [sum(sizes[:i]) * 2 + j * size for i, size in enumerate(sizes) for j in (0, 1)]
    run = function("block_gradient", x.dtype)
    parts: list[tuple[int, Tensor]] = []

    def part(first: int, last_row: int) -> None:
        scratch, sums = room(inside), zeros(2 * sum(sizes))
        run(
            ctypes.addressof(structure), at(grad, first * small * shape.outputs),
            at(x, first * pixels * shape.channels), at(last, first * small * shape.outputs),
            _optional(weights.expand), _optional(weights.expand_back), *first_one, at(weights.depthwise),
            at(weights.depthwise_back), *second, at(weights.project_back), third,
            first, last_row - first, each, at(scratch), at(of_x, first * pixels * shape.channels),
            *(at(sums, offset) for offset in offsets),
        )  # fmt: skip
        parts.append((first, sums))

    split(part, batch, batch * shape.inside * pixels)
    ordered = [sums for _, sums in sorted(parts, key=lambda found: found[0])]
    total = (ordered[0] if len(ordered) == 1 else torch.stack(ordered).sum(0)).float()
    channels = (shape.inside, shape.inside, shape.outputs)
    pieces = total.split([2 * size for size in sizes])
    found: list[Affine | None] = []
    for pair, piece, count in zip(affines, pieces, channels, strict=True):
        halves = piece.view(2, tasks, -1)[:, :, :count] if pair is not None else None
        found.append(None if halves is None else (halves[0], halves[1]))
    return of_x, found


def _tasks(affines: list[Affine | None]) -> int:
    last = affines[-1]
    assert last is not None
    return len(last[0])


def _pointers(affine: Affine | None) -> tuple[int, int]:
    return (0, 0) if affine is None else (at(affine[0]), at(affine[1]))


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
