"""The floor: the bare convolutions of a work, in the fastest layout, without autograd.

Counted per task, for S support and Q query images and K inner steps, are the convolutions that no
implementation of the method can leave out:

==========================  =======  ===============  ==============  ================
                            layer    forward          input gradient  weight gradient
==========================  =======  ===============  ==============  ================
training, support images    1        1                0               1
training, support images    2 to 4   2 K              2 K             2 K
training, query images      1        1                0               1
training, query images      2 to 4   1                1               1
evaluation, support images  1        1                0               0
evaluation, support images  2 to 4   K                K               0
evaluation, query images    1 to 4   1                0               0
serving, query images       1 to 4   1                0               0
==========================  =======  ===============  ==============  ================

Block 1's convolution comes before the first FiLM site: support images pass it once. An inner step is a
forward pass and a gradient with respect to the maps. Its second order is, per convolution, a forward
convolution of the input gradient's cotangent, another input gradient, and two weight gradients (one of the
forward pass, one of the input gradient). Tensors stay where they are from call to call, so they come from a
cache as warm as it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .rounds import System
from .tasks import Setting

LAYERS = (1, 2, 3, 4)


class Convolution(NamedTuple):
    """``times`` convolutions of layer 1 to 4 over ``rows`` images."""

    kind: str  # forward, input, weight
    layer: int
    rows: int
    times: int


def of_training(setting: Setting) -> Iterator[Convolution]:
    """See the table above; times are per task."""
    support, query, twice = setting.support_rows, setting.query_rows, 2 * setting.steps
    for layer in LAYERS:
        inner = layer > 1
        yield Convolution("forward", layer, support, twice if inner else 1)
        yield Convolution("input", layer, support, twice if inner else 0)
        yield Convolution("weight", layer, support, twice if inner else 1)
        yield Convolution("forward", layer, query, 1)
        yield Convolution("input", layer, query, 1 if inner else 0)
        yield Convolution("weight", layer, query, 1)


def of_evaluation(setting: Setting) -> Iterator[Convolution]:
    for layer in LAYERS:
        inner = layer > 1
        yield Convolution("forward", layer, setting.support_rows, setting.steps if inner else 1)
        yield Convolution("input", layer, setting.support_rows, setting.steps if inner else 0)
        yield Convolution("forward", layer, setting.query_rows, 1)


def of_serving(rows: int) -> Iterator[Convolution]:
    """A forward pass of ``rows`` images."""
    for layer in LAYERS:
        yield Convolution("forward", layer, rows, 1)


def system(
    setting: Setting,
    counted: list[Convolution],
    precision: str = "float32",
    *,
    tasks: int | None = None,
    together: tuple[int, ...] = (1, 4),
    note: str = "",
) -> System:
    """The convolutions of ``tasks`` tasks; variants by layout and by how many tasks share a call."""
    count = setting.tasks if tasks is None else tasks
    variants = tuple(
        System(
            "floor", run(setting, counted, precision, size, layout, count // size), count, precision, label
        )
        for size in together
        if count % size == 0
        for layout, name in (
            (torch.channels_last, "channels_last"),
            (torch.contiguous_format, "contiguous"),
        )
        for label in (f"{name}, {size} {'task' if size == 1 else 'tasks'} per call",)
    )
    return System("floor", lambda: None, count, precision, note or describe(counted), variants)


def describe(counted: list[Convolution]) -> str:
    """Which convolutions, in a line."""
    parts = [f"{c.times} {c.kind} of layer {c.layer} over {c.rows} images" for c in counted if c.times]
    return f"bare convolutions per task: {', '.join(parts)}"


def run(
    setting: Setting,
    counted: list[Convolution],
    precision: str,
    together: int,
    layout: torch.memory_format,
    repeats: int,
) -> Callable[[], object]:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    calls = [
        call
        for one in counted
        if one.times
        for call in [_convolution(setting, one, dtype, together, layout)] * one.times
    ]

    def go() -> None:
        with torch.inference_mode():
            for _ in range(repeats):
                for call in calls:
                    call()

    return go


def _convolution(
    setting: Setting, one: Convolution, dtype: torch.dtype, together: int, layout: torch.memory_format
) -> Callable[[], object]:
    side = setting.size // 2 ** (one.layer - 1)
    channels = setting.channels if one.layer == 1 else setting.width

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype).contiguous(memory_format=layout)

    x = tensor(one.rows * together, channels, side, side)
    weight = tensor(setting.width, channels, 3, 3)
    if one.kind == "forward":
        return lambda: F.conv2d(x, weight, None, 1, 1)
    grad = tensor(one.rows * together, setting.width, side, side)
    mask = [one.kind == "input", one.kind == "weight", False]
    return lambda: torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
    )
