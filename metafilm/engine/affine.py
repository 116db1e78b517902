"""A norm's affine and the ReLU behind it in one operation, differentiable twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from metafilm.engine import plain
from metafilm.engine.convolution import wanted
from metafilm.engine.native import functions as native
from metafilm.engine.plain import transformed


def affine_relu(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """``relu(gain ⊙ x + shift)``.

    Args:
        x: ``[T·n, C, H, W]``, the n rows of a task contiguous.
        gain, shift: ``[T, C]``.
    """
    if transformed():
        return plain.affine_relu(x, gain, shift)
    return _AffineRelu.apply(x.contiguous(memory_format=torch.channels_last), gain, shift)  # type: ignore[return-value]


class _AffineRelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        if native.fits(x):
            out = native.affine(x, gain, shift)
        elif len(gain) == 1:
            # the norm's kernel with mean 0 and variance 1: it computes in float32 whatever the maps' dtype
            mean, var = _standard(gain)
            out = torch.native_batch_norm(x, gain[0], shift[0], mean, var, False, 0.0, 0.0)[0].relu_()
        else:
            # that kernel knows one affine for all rows
            tasks, channels = gain.shape
            pixels = x.permute(0, 2, 3, 1).view(tasks, -1, channels)
            mapped = torch.addcmul(shift.unsqueeze(1).to(x.dtype), pixels, gain.unsqueeze(1).to(x.dtype))
            batch, _, height, width = x.shape
            out = mapped.relu_().view(batch, height, width, channels).permute(0, 3, 1, 2)
        ctx.save_for_backward(x, gain, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, out = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed():
            # an outer gradient goes through these once more, and the kernels below have no derivative
            tasks = len(gain)
            grad = torch.ops.aten.threshold_backward(grad, out.detach(), 0).unflatten(0, (tasks, -1))
            spread = gain[:, None, :, None, None]
            of_x = (grad * spread.to(x.dtype)).flatten(0, 1) if wanted(ctx, 0) else None
            of_gain = (grad * x.unflatten(0, (tasks, -1))).sum((1, 3, 4), dtype=gain.dtype)
            return of_x, of_gain, grad.sum((1, 3, 4), dtype=gain.dtype)
        grad = grad.contiguous(memory_format=torch.channels_last)
        if native.fits(x):
            return native.affine_gradient(grad, out, x, gain)
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        if len(gain) == 1 and not grad.is_cuda:  # on a GPU it wants what only a norm in training has kept
            mean, var = _standard(gain)
            of_x, of_gain, of_shift = torch.ops.aten.native_batch_norm_backward(
                grad, x, gain[0], mean, var, None, None, False, 0.0, [True, True, True]
            )
            return of_x, of_gain.unsqueeze(0), of_shift.unsqueeze(0)
        pixels, values = (t.permute(0, 2, 3, 1).reshape(len(gain), -1, t.shape[1]) for t in (grad, x))
        of_x = (
            (pixels * gain.unsqueeze(1).to(x.dtype)).view(grad.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        )
        return of_x, (pixels * values).sum(1, dtype=gain.dtype), pixels.sum(1, dtype=gain.dtype)


def _standard(gain: Tensor) -> tuple[Tensor, Tensor]:
    """Mean 0 and variance 1 for each feature."""
    return gain.new_zeros(gain.shape[1]), gain.new_ones(gain.shape[1])
