"""Frozen layers under FiLM: their weights are constants, only the deviations' gradients are wanted.

A frozen norm, its FiLM and the clamp behind it (ReLU, ReLU6, or none) are one affine and one comparison per
number, and its gradient needs nothing but what came in. A frozen inverted residual block (Sandler et al.,
MobileNetV2, CVPR 2018, arXiv:1801.04381) keeps its narrow ends alone and computes its wide inside once more
on the way back. Both run on the kernels of :mod:`metafilm.engine.native.blocks`, and on PyTorch's operations
where a second derivative is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from metafilm.engine.native import blocks as native
from metafilm.engine.native.blocks import Affine, Shape, Weights
from metafilm.engine.plain import transformed

Deviation = tuple[Tensor, Tensor] | None
"""δγ and δβ, ``[T, C]`` each; None where a norm has no FiLM."""
Plain = Callable[..., Tensor]
"""A layer in PyTorch's operations: its input and deviations in, its output out."""


@dataclass(frozen=True)
class Fixed:
    """A frozen norm as an affine, ``[C]`` float32 each."""

    gain: Tensor
    shift: Tensor

    def under(self, deviation: Deviation) -> Affine:
        """Followed by FiLM: ``[T, C]`` each, ``[1, C]`` without."""
        if deviation is None:
            return self.gain.unsqueeze(0), self.shift.unsqueeze(0)
        more, bias = deviation
        return torch.addcmul(self.gain, self.gain, more), torch.addcmul(bias + self.shift, self.shift, more)

    def back(self, of_gain: Tensor, of_shift: Tensor) -> tuple[Tensor, Tensor]:
        """The deviation's gradient from the affine's."""
        return torch.addcmul(self.shift * of_shift, self.gain, of_gain), of_shift


def norm_act(
    x: Tensor, fixed: Fixed, deviation: Deviation, bounds: tuple[float, float], plain: Plain
) -> Tensor:
    """``clamp(FiLM(norm(x)))``.

    Args:
        x: ``[T·n, C, H, W]`` that :func:`metafilm.engine.native.fits` the kernels.
        plain: the same in PyTorch's operations, of ``(x, δγ, δβ)``.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    return _NormAct.apply(x, *(deviation or (None, None)), fixed, bounds, plain)  # type: ignore[return-value]


def inverted_residual(
    x: Tensor,
    fixed: tuple[Fixed | None, Fixed, Fixed],
    deviations: tuple[Deviation, Deviation, Deviation],
    shape: Shape,
    weights: Weights,
    plain: Plain,
) -> Tensor:
    """A frozen inverted residual block of ``x [T·n, C, H, W]``.

    Args:
        fixed: its norms; the first is None where it does not expand.
        deviations: of these norms; T is the same for all that have some.
        plain: the same in PyTorch's operations, of ``(x, δγ1, δβ1, δγ2, δβ2, δγ3, δβ3)``.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    flat = [value for pair in deviations for value in pair or (None, None)]
    return _InvertedResidual.apply(x, *flat, fixed, shape, weights, plain)  # type: ignore[return-value]


class _NormAct(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        more: Tensor | None,
        bias: Tensor | None,
        fixed: Fixed,
        bounds: tuple[float, float],
        plain: Plain,
    ) -> Tensor:
        ctx.save_for_backward(x, more, bias)
        affine = fixed.under(None if more is None or bias is None else (more, bias))
        ctx.fixed, ctx.affine, ctx.bounds, ctx.plain = fixed, affine, bounds, plain
        return native.norm_act(x, affine, bounds)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, more, bias = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed():
            return *_again(ctx, (x, more, bias), grad), None, None, None
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x, sums = native.norm_act_gradient(grad, x, ctx.affine, ctx.bounds)
        found = (None, None) if more is None else ctx.fixed.back(*sums)
        return of_x, *found, None, None, None


class _InvertedResidual(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> Tensor:
        flat, (fixed, shape, weights, plain) = arguments[:6], arguments[6:]
        tasks = max((len(value) for value in flat if value is not None), default=1)
        pairs = [None if flat[i] is None else (flat[i], flat[i + 1]) for i in (0, 2, 4)]
        affines = [
            None if norm is None else native.filled(norm.under(pair), tasks)
            for norm, pair in zip(fixed, pairs, strict=True)
        ]
        out, last = native.block(x, shape, weights, affines)
        ctx.save_for_backward(x, *flat, last)
        ctx.fixed, ctx.affines, ctx.shape, ctx.weights, ctx.plain = fixed, affines, shape, weights, plain
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, *flat, last = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed():
            return *_again(ctx, (x, *flat), grad), None, None, None, None
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x, sums = native.block_gradient(grad, x, last, ctx.shape, ctx.weights, ctx.affines)
        found: list[Tensor | None] = []
        for fixed, pair, more in zip(ctx.fixed, sums, flat[::2], strict=True):
            found += (None, None) if more is None or fixed is None or pair is None else fixed.back(*pair)
        return of_x, *found, None, None, None, None


def _again(ctx: Any, inputs: tuple[Tensor | None, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as functions that can be differentiated once more: by way of PyTorch's operations."""
    asked = {i: value for i, value in enumerate(inputs) if value is not None and ctx.needs_input_grad[i]}
    found: list[Tensor | None] = [None] * len(inputs)
    with torch.enable_grad():
        out = ctx.plain(*inputs)
        gradients = torch.autograd.grad(out, list(asked.values()), grad, create_graph=True)
    for i, gradient in zip(asked, gradients, strict=True):
        found[i] = gradient
    return tuple(found)
