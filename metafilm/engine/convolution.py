"""A convolution whose derivatives of every order run on native kernels.

PyTorch differentiates a convolution's backward pass by convolutions whose kernels are as large as the maps,
many times slower than the native kernels that are called here instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from metafilm.engine.plain import transformed

Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Stride, padding, dilation and groups."""


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` whose gradients of any order run on native kernels."""

    def forward(self, x: Tensor) -> Tensor:
        # other people's layers, which keep PyTorch's gradients; the backbones' have none of these
        if self.bias is not None or self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super().forward(x)
        # the compiler and torch.func differentiate PyTorch's own operations, and know no others
        if torch.compiler.is_compiling() or transformed():
            return super().forward(x)
        weight = self.weight
        # autocast does not look into an autograd function: what it would cast is cast before
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        return conv2d(x, weight, (self.stride, self.padding, self.dilation, self.groups))


def conv2d(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """``F.conv2d`` without bias; gradients of any order by native kernels.

    Args:
        x: ``[B, C, H, W]``.
        weight: ``[O, C / groups, h, w]``, of the same dtype.
        geometry: stride, padding, dilation (pairs) and groups.
    """
    if transformed():
        return F.conv2d(x, weight, None, *geometry)
    return _Convolve.apply(x, weight, geometry)  # type: ignore[return-value]


def _input_gradient(grad: Tensor, weight: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
    # a graph made before a transform may be gone through within it, as vectorised Jacobians do
    if transformed():
        return _backward(grad, like, weight, geometry, 0)
    return _InputGradient.apply(grad, weight, like, geometry)  # type: ignore[return-value]


def _weight_gradient(grad: Tensor, x: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
    if transformed():
        return _backward(grad, x, like, geometry, 1)
    return _WeightGradient.apply(grad, x, like, geometry)  # type: ignore[return-value]


# A convolution y(x, w), its input gradient x̄(g, w) and its weight gradient w̄(g, x) are three bilinear maps,
# and each one's derivatives are the other two: differentiating stays among them.


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return F.conv2d(x, weight, None, *geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = _input_gradient(grad, weight, x, ctx.geometry) if wanted(ctx, 0) else None
        of_w = _weight_gradient(grad, x, weight, ctx.geometry) if wanted(ctx, 1) else None
        return of_x, of_w, None


class _InputGradient(Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.geometry = geometry
        return _backward(grad, like, weight, geometry, 0)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        grad, weight = ctx.saved_tensors
        of_grad = conv2d(u, weight, ctx.geometry) if wanted(ctx, 0) else None
        of_w = _weight_gradient(grad, u, weight, ctx.geometry) if wanted(ctx, 1) else None
        return of_grad, of_w, None, None


class _WeightGradient(Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.geometry = geometry
        return _backward(grad, x, like, geometry, 1)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        grad, x = ctx.saved_tensors
        of_grad = conv2d(x, u, ctx.geometry) if wanted(ctx, 0) else None
        of_x = _input_gradient(grad, u, x, ctx.geometry) if wanted(ctx, 1) else None
        return of_grad, of_x, None, None


def wanted(ctx: Any, which: int) -> bool:
    """Whether the backward pass under way has a use for this argument's gradient.

    ``needs_input_grad`` says only that the argument has one: an inner step, which asks for the deviations'
    gradient alone, would pay for every weight's.
    """
    if not ctx.needs_input_grad[which]:
        return False
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[which][0])  # type: ignore[attr-defined]
    except (RuntimeError, AttributeError):  # the gradient of a leaf was asked for by name
        return True


def _backward(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, which: int) -> Tensor:
    """One of PyTorch's own gradients: of the input (0) or of the weight (1)."""
    # of the tensor whose gradient it is the operation reads the shape alone, so no value is kept for it
    stride, padding, dilation, groups = geometry
    mask = [which == 0, which == 1, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
    )[which]
