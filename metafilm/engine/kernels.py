"""What lies between two convolutions of a block: exact, in few passes over memory, and differentiable twice.

:func:`pool_and_moments` takes max-pooled maps and each task's mean and variance from the same maps and gives
them one gradient, so that a norm need never be applied at full size: a norm's affine with a positive gain
commutes with max-pooling. :func:`affine_relu` is the rest. Both run on the kernels of
:mod:`metafilm.engine.native.functions` where these take the maps, else on PyTorch's operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from metafilm.engine import plain
from metafilm.engine.affine import affine_relu as affine_relu
from metafilm.engine.convolution import Conv2d, conv2d, wanted
from metafilm.engine.native import functions as native
from metafilm.engine.plain import transformed


def pool_and_moments(y: Tensor, tasks: int = 1, rows: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """2×2 max-pooling, and the mean and variance of each task's maps before it.

    Args:
        y: ``[T·n, C, H, W]``, the n rows of a task contiguous.
        tasks: T.
        rows: how many of a task's rows, from the first, the moments are of; None: all.

    Returns:
        Pooled maps ``[T·n, C, H // 2, W // 2]``; mean and biased variance ``[T, C]``, in float32 for bfloat16
        maps.
    """
    if transformed():
        return plain.pool_and_moments(y, tasks, rows)
    return _PoolAndMoments.apply(y.contiguous(memory_format=torch.channels_last), tasks, rows)  # type: ignore[return-value]


def max_pool(y: Tensor) -> Tensor:
    """2×2 max-pooling of maps ``[B, C, H, W]``, by the quicker of two kernels."""
    return pool_and_moments(y)[0] if native.fits(y) else F.max_pool2d(y, 2)


def moments(y: Tensor, tasks: int = 1, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """The second and third of :func:`pool_and_moments` alone, for maps ``[T·n, C, H, W]`` of any layout."""
    if transformed():
        return plain.moments(y, tasks, rows)
    return _Moments.apply(y, tasks, rows)  # type: ignore[return-value]


def _moments(y: Tensor, tasks: int, rows: int | None) -> tuple[Tensor, Tensor]:
    found = [_task_moments(part[:rows]) for part in y.chunk(tasks)]
    means, variances = zip(*found, strict=True)
    return torch.stack(means), torch.stack(variances)


def _task_moments(y: Tensor) -> tuple[Tensor, Tensor]:
    if y.dtype != torch.bfloat16:
        # batch norm's own kernel: on channels-last maps many times quicker than torch.var_mean
        return torch.batch_norm_update_stats(y, None, None, 0.0)
    # the kernel rounds what it returns to bfloat16, but not what it leaves in running averages
    mean, var = y.new_zeros((2, y.shape[1]), dtype=torch.float32)
    torch.batch_norm_update_stats(y, mean, var, 1.0)
    count = y.numel() // y.shape[1]
    return mean, var * ((count - 1) / count)


class _Moments(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, tasks: int, rows: int | None) -> tuple[Tensor, Tensor]:
        mean, var = _moments(y, tasks, rows)
        ctx.save_for_backward(y, mean)
        ctx.rows = rows
        return mean, var

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_var: Tensor) -> tuple[Tensor | None, ...]:
        y, mean = ctx.saved_tensors
        per_task = y.unflatten(0, (len(mean), -1))  # [T, n, C, H, W]
        part = per_task[:, : ctx.rows]
        count = part[0, :, 0].numel()
        shape = (len(mean), 1, -1, 1, 1)
        # the mean once more, as a function of y that a second derivative sees
        centred = part - part.mean((1, 3, 4), keepdim=True)
        grad = (of_mean / count).view(shape) + (of_var * (2 / count)).view(shape) * centred
        if ctx.rows is not None:
            # queries are no part of the moments: nothing flows back to them
            grad = torch.cat((grad, torch.zeros_like(per_task[:, ctx.rows :])), 1)
        return grad.to(y.dtype).flatten(0, 1), None, None


class _PoolAndMoments(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, tasks: int, rows: int | None) -> tuple[Tensor, Tensor, Tensor]:
        counted = y.shape[0] // tasks if rows is None else rows
        if native.fits(y):
            pooled, places, mean, var = native.pool(y, tasks, counted)
        else:
            pooled, places = F.max_pool2d(y, 2, return_indices=True)
            mean, var = _moments(y, tasks, rows)
        ctx.save_for_backward(y, places, mean)
        ctx.counted = counted
        ctx.set_materialize_grads(False)
        return pooled, mean, var

    @staticmethod
    def backward(
        ctx: Any, of_pooled: Tensor | None, of_mean: Tensor | None, of_var: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        y, places, mean = ctx.saved_tensors
        if of_pooled is None and of_mean is None and of_var is None:
            return None, None, None
        if of_pooled is None:
            of_pooled = torch.zeros_like(F.max_pool2d(y, 2))
        of_mean = torch.zeros_like(mean) if of_mean is None else of_mean
        of_var = torch.zeros_like(mean) if of_var is None else of_var
        if transformed():
            grad = _plain_gradient(of_pooled, of_mean, of_var, y, ctx.counted)
        else:
            grad = _PoolAndMomentsGradient.apply(of_pooled, of_mean, of_var, y, places, mean, ctx.counted)
        return grad, None, None  # type: ignore[return-value]


class _PoolAndMomentsGradient(Function):
    """ȳ = unpool(p̄) + m̄ / M + 2 v̄ (y - m) / M over the M pixels that the moments are of."""

    @staticmethod
    def forward(
        ctx: Any,
        of_pooled: Tensor,
        of_mean: Tensor,
        of_var: Tensor,
        y: Tensor,
        places: Tensor,
        mean: Tensor,
        counted: int,
    ) -> Tensor:
        ctx.save_for_backward(of_var, y, places, mean)
        ctx.counted = counted
        offset, slope = _line(of_mean, of_var, mean, counted * y.shape[2] * y.shape[3])
        # the places themselves tell who made them: what fits may have changed since the forward pass
        if places.dtype == torch.uint8:
            of_pooled = of_pooled.contiguous(memory_format=torch.channels_last)
            return native.unpool(of_pooled, places, y, offset, slope, counted)
        grad = torch.ops.aten.max_pool2d_with_indices_backward(
            of_pooled, y, [2, 2], [2, 2], [0, 0], [1, 1], False, places
        )
        into, part = _pixels(grad, mean, counted), _pixels(y, mean, counted)
        into.addcmul_(part, slope.unsqueeze(1).to(y.dtype)).add_(offset.unsqueeze(1).to(y.dtype))
        return grad

    # an outer gradient through inner steps takes two orders; a third is refused, never wrong
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        of_var, y, places, mean = ctx.saved_tensors
        needs, counted = [wanted(ctx, i) for i in range(4)], ctx.counted
        if transformed():
            # linear in the first two, so that their values don't matter
            zeros = torch.zeros_like(F.max_pool2d(y, 2)), torch.zeros_like(mean)
            inputs = (*zeros, of_var, y)
            found = plain.pull_back(lambda *args: _plain_gradient(*args, counted=counted), inputs, u)
            return *found, None, None, None
        u = u.contiguous(memory_format=torch.channels_last)
        part, u_part = _pixels(y, mean, counted), _pixels(u, mean, counted)
        count = part.shape[1]
        u_sum = u_part.sum(1, dtype=mean.dtype)  # [T, C]
        on_pooled = on_mean = on_var = on_y = None
        if needs[0]:
            on_pooled = native.gather(u, places) if places.dtype == torch.uint8 else _gather(u, places)
        if needs[1]:
            on_mean = u_sum / count
        if needs[2]:
            # Σ u (y - m), without a centred copy of the maps
            on_var = ((u_part * part).sum(1, dtype=mean.dtype) - u_sum * mean) * (2 / count)
        if needs[3]:
            # m is a function of y too: (y - m) moves by u - mean(u)
            slope = (of_var * (2 / count)).unsqueeze(1).to(y.dtype)
            on_y = torch.zeros_like(y)
            _pixels(on_y, mean, counted).copy_(
                (u_part - (u_sum / count).unsqueeze(1).to(y.dtype)).mul_(slope)
            )
        return on_pooled, on_mean, on_var, on_y, None, None, None


def _plain_gradient(of_pooled: Tensor, of_mean: Tensor, of_var: Tensor, y: Tensor, counted: int) -> Tensor:
    """:class:`_PoolAndMomentsGradient` where a graph made outside a transform is gone through within it."""
    tasks = len(of_mean)
    grads = (of_pooled, of_mean, of_var)
    return plain.pull_back(lambda y: plain.pool_and_moments(y, tasks, counted), (y,), grads)[0]


def _line(of_mean: Tensor, of_var: Tensor, mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The gradient of a mean and a variance over ``count`` pixels, as offset + slope · y."""
    slope = of_var * (2 / count)
    return of_mean / count - slope * mean, slope


def _pixels(y: Tensor, mean: Tensor, counted: int) -> Tensor:
    """The pixels that each task's moments are of, ``[T, M, C]``: a view of channels-last maps."""
    pixels = y.permute(0, 2, 3, 1).view(len(mean), -1, y.shape[1])
    return pixels[:, : counted * y.shape[2] * y.shape[3]]


def _gather(u: Tensor, places: Tensor) -> Tensor:
    """The entries of maps ``[B, C, H, W]`` where their maxima were, ``[B, C, h, w]``."""
    batch, channels, height, width = places.shape
    flat = u.permute(0, 2, 3, 1).reshape(batch, -1, channels)
    where = places.permute(0, 2, 3, 1).reshape(batch, -1, channels)
    return flat.gather(1, where).view(batch, height, width, channels).permute(0, 3, 1, 2)


def stem_fits(convolution: nn.Module, x: Tensor) -> bool:
    """Whether :func:`stem_pool_and_moments` can take this convolution of these images."""
    return (
        isinstance(convolution, Conv2d)
        and convolution.weight.shape[1:] == (1, 3, 3)
        and convolution.padding == convolution.stride == convolution.dilation == (1, 1)
        and convolution.padding_mode == "zeros"
        and convolution.bias is None
        and len(convolution.weight) <= native.MOST_CHANNELS
        and convolution.weight.dtype in native.DTYPES
        and not x.requires_grad
        and native.fits(x)
    )


def stem_pool_and_moments(
    x: Tensor, weight: Tensor, tasks: int = 1, rows: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`pool_and_moments` of a 3×3 convolution of one-channel images, whose maps are never in memory.

    Args:
        x: ``[T·n, 1, H, W]`` float32 or bfloat16, without a gradient.
        weight: ``[C, 1, 3, 3]``, likewise. The arithmetic is float32.
        tasks, rows: as there.
    """
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else weight.dtype
    return _Stem.apply(x.float(), weight.float(), tasks, rows, dtype)  # type: ignore[return-value]


class _Stem(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, tasks: int, rows: int | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        counted = x.shape[0] // tasks if rows is None else rows
        pooled, places, mean, var = native.stem(x, weight, dtype, tasks, counted)
        ctx.save_for_backward(x, weight, places, mean)
        ctx.counted, ctx.dtype = counted, dtype
        return pooled, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, places, mean = ctx.saved_tensors
        of_pooled, of_mean, of_var = grads

        def through_maps(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            maps = conv2d(x.to(ctx.dtype), weight.to(ctx.dtype), ((1, 1), (1, 1), (1, 1), 1))
            return pool_and_moments(maps, len(mean), ctx.counted)

        if transformed():
            return None, *plain.pull_back(through_maps, (weight,), grads), None, None, None
        if torch.is_grad_enabled():  # a second derivative in the weight: through the maps after all
            found = through_maps(weight)
            return None, *torch.autograd.grad(found, [weight], grads, create_graph=True), None, None, None
        # once differentiated no maps are needed: moments depend on the sums over the images' patches alone
        offset, slope = _line(of_mean, of_var, mean, ctx.counted * x.shape[2] * x.shape[3])
        of_pooled = of_pooled.contiguous(memory_format=torch.channels_last)
        of_weight = native.stem_gradient(x, weight, of_pooled, places, offset, slope, ctx.counted)
        return None, of_weight, None, None, None
