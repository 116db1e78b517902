"""The kernels of ``kernels.c`` on tensors, where the machine has a C compiler.

They do in one pass over memory what takes PyTorch's operations four or five: on a CPU most of the time
that a few-shot step spends outside its convolutions. Without a compiler, in float64 and on GPUs the same
functions run on PyTorch's operations (:mod:`metafilm.engine.kernels`).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

from metafilm.engine.native.library import library
from metafilm.engine.plain import transformed
from metafilm.errors import MetafilmError

MOST_CHANNELS = 2048  # MOST in kernels.c
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
PARALLEL = 2**18  # elements below which a second thread costs more than it saves


def fits(x: Tensor) -> bool:
    """Whether the kernels take these maps ``[B, C, H, W]``."""
    return (
        x.dtype in DTYPES
        and x.device.type == "cpu"
        and len(x) > 0
        and 0 < x.shape[1] <= MOST_CHANNELS
        and not torch.compiler.is_compiling()
        and not transformed()
        and library() is not None
    )


def pool(y: Tensor, tasks: int, counted: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Max-pooled maps and moments of channels-last maps.

    Args:
        y: ``[T·n, C, H, W]``.
        tasks: T.
        counted: of how many of a task's rows, from the first, the moments are.

    Returns:
        Pooled maps, places ``[T·n, h, w, C]`` uint8, mean and biased variance ``[T, C]`` float32.
    """
    batch, channels, height, width = y.shape
    pooled, places, sums = _pooled(y, y.dtype, channels)
    rows = batch // tasks
    # [T, C], about the mean, from a picture of each task's own: of its middle, since padding tells on borders
    shift = y[::rows, :, height // 2].float().mean(-1).to(y.dtype)
    run = function("pool", y.dtype)
    size, small = height * width * channels, (height // 2) * (width // 2) * channels

    def part(first: int, last: int) -> None:
        while first < last:
            task = first // rows
            end = min(last, (task + 1) * rows)
            run(
                at(y, first * size), end - first, height, width, channels, at(shift, task * channels),
                at(pooled, first * small), at(places, first * small), at(sums, first * 2 * channels),
            )  # fmt: skip
            first = end

    split(part, batch, y.numel())
    mean, var = _moments(sums, tasks, counted, height * width)
    return pooled, places, mean + shift.to(mean.dtype), var


def unpool(grad: Tensor, places: Tensor, y: Tensor, offset: Tensor, slope: Tensor, counted: int) -> Tensor:
    """Gradient of ``y``: ``grad`` where the maxima were, plus ``offset + slope · y`` ``[T, C]`` on the rows
    that the moments are of."""
    batch, channels, height, width = y.shape
    tasks = len(offset)
    rows = batch // tasks
    out = torch.empty_like(y)
    run = function("unpool", y.dtype)
    offset, slope = offset.float().contiguous(), slope.float().contiguous()
    size, small = height * width * channels, (height // 2) * (width // 2) * channels

    def part(first: int, last: int) -> None:
        """Of tasks, or of the rows of the only one."""
        of_tasks = tasks > 1
        step = rows if of_tasks else 1
        run(
            at(grad, first * step * small), at(places, first * step * small), at(y, first * step * size),
            at(offset, first * channels * of_tasks), at(slope, first * channels * of_tasks),
            last - first if of_tasks else 1, rows if of_tasks else last - first,
            counted if of_tasks else min(max(counted - first, 0), last - first),
            height, width, channels, at(out, first * step * size),
        )  # fmt: skip

    split(part, tasks if tasks > 1 else rows, y.numel())
    return out


def gather(u: Tensor, places: Tensor) -> Tensor:
    """The entries of channels-last maps ``u`` where the maxima were: ``[B, C, h, w]``."""
    batch, channels, height, width = u.shape
    out = _like(places, u.dtype)
    run = function("gather", u.dtype)
    size, small = height * width * channels, (height // 2) * (width // 2) * channels

    def part(first: int, last: int) -> None:
        run(
            at(u, first * size), at(places, first * small), last - first, height, width, channels,
            at(out, first * small),
        )  # fmt: skip

    split(part, batch, u.numel())
    return out


def affine(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """``relu(gain ⊙ x + shift)``: channels-last ``[T·n, C, H, W]``, ``[T, C]``."""
    channels, tasks = x.shape[1], len(gain)
    # C reads as much as it is told to: a shorter array would be read beyond its end
    if gain.shape != shift.shape or gain.shape != (tasks, channels) or not tasks or len(x) % tasks:
        raise MetafilmError(
            f"gains {tuple(gain.shape)} and shifts {tuple(shift.shape)} for maps {tuple(x.shape)}; give "
            f"[T, {channels}] each, T a divisor of the rows"
        )
    out = torch.empty_like(x)
    gain, shift = gain.float().contiguous(), shift.float().contiguous()
    pixels = x.numel() // (channels * tasks)
    run = function("affine", x.dtype)

    def part(first: int, last: int) -> None:
        of_tasks = tasks > 1
        begin = first * channels * (pixels if of_tasks else 1)
        run(
            at(x, begin), at(gain, first * channels * of_tasks), at(shift, first * channels * of_tasks),
            last - first if of_tasks else 1, pixels if of_tasks else last - first, channels, at(out, begin),
        )  # fmt: skip

    split(part, tasks if tasks > 1 else pixels, x.numel())
    return out


def affine_gradient(grad: Tensor, out: Tensor, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`affine` in ``x``, ``gain`` and ``shift``."""
    channels, tasks = x.shape[1], len(gain)
    of_x = torch.empty_like(x)
    gain = gain.float().contiguous()
    pixels = x.numel() // (channels * tasks)
    parts: list[tuple[int, Tensor]] = []
    run = function("affine_gradient", x.dtype)

    def part(first: int, last: int) -> None:
        of_tasks = tasks > 1
        begin = first * channels * (pixels if of_tasks else 1)
        sums = zeros(2, last - first if of_tasks else 1, channels)
        run(
            at(grad, begin), at(out, begin), at(x, begin), at(gain, first * channels * of_tasks),
            sums.shape[1], pixels if of_tasks else last - first, channels, at(of_x, begin),
            at(sums[0]), at(sums[1]),
        )  # fmt: skip
        parts.append((first, sums))

    split(part, tasks if tasks > 1 else pixels, x.numel())
    ordered = [sums for _, sums in sorted(parts, key=lambda found: found[0])]
    total = torch.cat(ordered, 1) if tasks > 1 else torch.stack(ordered).sum(0)
    return of_x, total[0].to(gain.dtype), total[1].to(gain.dtype)


def stem(
    x: Tensor, weight: Tensor, dtype: torch.dtype, tasks: int, counted: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`pool` of a 3×3 convolution (padding 1) of one-channel images, whose maps are never written.

    Args:
        x: ``[T·n, 1, H, W]`` float32.
        weight: ``[C, 1, 3, 3]`` float32.
        dtype: of the pooled maps.
    """
    batch, _, height, width = x.shape
    channels = len(weight)
    x = x.contiguous()
    by_place = weight.reshape(channels, 9).T.contiguous()
    pooled, places, sums = _pooled(x, dtype, channels)
    run = function("stem", dtype)
    small = (height // 2) * (width // 2) * channels

    def part(first: int, last: int) -> None:
        buffer = room((height + 2) * (width + 2))
        run(
            at(x, first * height * width), at(by_place), last - first, height, width, channels,
            at(buffer), at(pooled, first * small), at(places, first * small),
            at(sums, first * 2 * channels),
        )  # fmt: skip

    split(part, batch, batch * channels * height * width)
    return pooled, places, *_moments(sums, tasks, counted, height * width)


def stem_gradient(
    x: Tensor, weight: Tensor, grad: Tensor, places: Tensor, offset: Tensor, slope: Tensor, counted: int
) -> Tensor:
    """Gradient of the weight ``[C, 1, 3, 3]``; ``offset`` and ``slope`` as in :func:`unpool`."""
    batch, _, height, width = x.shape
    channels, tasks = len(weight), len(offset)
    x = x.contiguous()
    small = (height // 2) * (width // 2) * channels
    run = function("stem_gradient", grad.dtype)
    patch_sums = function("patch_sums", None)
    sums, products = room(batch, 9), room(batch, 9, 9)
    parts: list[tuple[int, Tensor]] = []

    def part(first: int, last: int) -> None:
        buffer, scratch = room((height + 2) * (width + 2)), room(9 * channels)
        total = zeros(9, channels)
        image = at(x, first * height * width)
        run(
            image, at(grad, first * small), at(places, first * small), last - first, height, width,
            channels, at(buffer), at(scratch), at(total),
        )  # fmt: skip
        patch_sums(
            image, last - first, height, width, at(buffer), at(sums, first * 9), at(products, first * 81)
        )
        parts.append((first, total))

    split(part, batch, batch * channels * height * width)
    total = torch.stack([found for _, found in sorted(parts, key=lambda found: found[0])]).sum(0)
    # the moments are linear and quadratic in the weight, through the sums over all patches
    mine = slice(None, counted)
    first_order = sums.view(tasks, -1, 9)[:, mine].sum(1, dtype=torch.float64)  # [T, 9]
    second_order = products.view(tasks, -1, 9, 9)[:, mine].sum(1, dtype=torch.float64)  # [T, 9, 9]
    by_place = weight.reshape(channels, 9).T.double()  # [9, C]
    total += first_order.T @ offset.double()
    total += ((second_order @ by_place) * slope.double().unsqueeze(1)).sum(0)
    return total.T.reshape(weight.shape).to(weight.dtype)


def _pooled(x: Tensor, dtype: torch.dtype, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Room for pooled maps, places and sums."""
    batch, _, height, width = x.shape
    places = room(batch, height // 2, width // 2, channels, dtype=torch.uint8)
    return _like(places, dtype), places, room(batch, 2, channels)


def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory that a kernel fills. A bare ``torch.empty`` would follow the caller's default dtype and device,
    of which a kernel, given an address, knows nothing."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def zeros(*shape: int) -> Tensor:
    """Sums that a kernel adds to, in float64; otherwise as :func:`room`."""
    return torch.zeros(shape, dtype=torch.float64, device="cpu")


def _like(places: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(places, dtype=dtype).permute(0, 3, 1, 2)


def _moments(sums: Tensor, tasks: int, counted: int, pixels: int) -> tuple[Tensor, Tensor]:
    """Mean (less the shift) and variance ``[T, C]`` from each row's sums."""
    totals = sums.view(tasks, -1, *sums.shape[1:])[:, :counted].sum(1, dtype=torch.float64)
    mean, square = (totals / (counted * pixels)).unbind(1)
    return mean.float(), (square - mean.square()).clamp_(min=0).float()


_POINTER, _LONG = ctypes.c_void_p, ctypes.c_long


@cache
def function(name: str, dtype: torch.dtype | None) -> Callable[..., int]:
    """A kernel that raises MetafilmError where it refuses the shapes it is given."""
    found = library()
    assert found is not None
    function = getattr(found, name if dtype is None else f"{name}_{DTYPES[dtype]}")
    function.restype = ctypes.c_int
    function.errcheck = _checked
    function.argtypes = {
        "pool": [_POINTER, *[_LONG] * 4, *[_POINTER] * 4],
        "unpool": [*[_POINTER] * 5, *[_LONG] * 6, _POINTER],
        "gather": [*[_POINTER] * 2, *[_LONG] * 4, _POINTER],
        "affine": [*[_POINTER] * 3, *[_LONG] * 3, _POINTER],
        "affine_gradient": [*[_POINTER] * 4, *[_LONG] * 3, *[_POINTER] * 3],
        "stem": [*[_POINTER] * 2, *[_LONG] * 4, *[_POINTER] * 4],
        "stem_gradient": [*[_POINTER] * 3, *[_LONG] * 4, *[_POINTER] * 3],
        "patch_sums": [_POINTER, *[_LONG] * 3, *[_POINTER] * 3],
        "norm_act": [*[_POINTER] * 3, *[ctypes.c_float] * 2, *[_LONG] * 3, _POINTER],
        "norm_act_gradient": [*[_POINTER] * 4, *[ctypes.c_float] * 2, *[_LONG] * 3, *[_POINTER] * 3],
        "block": [*[_POINTER] * 11, *[_LONG] * 3, *[_POINTER] * 3],
        "block_gradient": [*[_POINTER] * 14, *[_LONG] * 3, *[_POINTER] * 8],
    }[name]
    return function


def _checked(code: int, function: Any, arguments: tuple) -> int:
    if code:
        raise MetafilmError(
            f"the kernel {function.__name__} takes 1 to {MOST_CHANNELS} channels and was given others: "
            "ask fits() first"
        )
    return code


def at(tensor: Tensor, offset: int = 0) -> int:
    """Address of an element of dense memory."""
    return tensor.data_ptr() + offset * tensor.element_size()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="metafilm-native")


def split(part: Callable[[int, int], None], count: int, elements: int) -> None:
    """Run ``part(first, last)`` over ``count`` things, on as many threads as PyTorch has where it pays."""
    threads = min(torch.get_num_threads(), count)
    if threads < 2 or elements < PARALLEL:
        part(0, count)
        return
    size = math.ceil(count / threads)
    ends = [(first, min(first + size, count)) for first in range(0, count, size)]
    list(_threads(threads).map(lambda pair: part(*pair), ends))
