"""The kernels' work in PyTorch's own operations, for where a kernel can't follow.

``torch.func``'s transforms (``grad``, ``vmap``, ``jvp`` ...) and forward-mode differentiation put wrapped
tensors in place of the real ones and need a rule of every operation for them. PyTorch's operations have such
rules; hand-written gradients and kernels that read memory have not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import vjp
from torch.nn import functional as F

# PyTorch asks the same before it refuses an autograd function; where a version lacks it, nothing is refused
_functorch_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def transformed() -> bool:
    """Whether operations run under one of ``torch.func``'s transforms or in forward-mode differentiation."""
    # the compiler can't trace these questions; what it traces it differentiates by itself
    if torch.compiler.is_compiling():
        return False
    return _functorch_active() or getattr(forward_ad, "_current_level", -1) >= 0


def pool_and_moments(y: Tensor, tasks: int, rows: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`metafilm.engine.kernels.pool_and_moments`."""
    return F.max_pool2d(y, 2), *moments(y, tasks, rows)


def moments(y: Tensor, tasks: int, rows: int | None) -> tuple[Tensor, Tensor]:
    """As :func:`metafilm.engine.kernels.moments`."""
    part = y.unflatten(0, (tasks, -1))[:, :rows]
    # eight bits are too few for a sum over many pixels
    part = part.float() if part.dtype == torch.bfloat16 else part
    var, mean = torch.var_mean(part, (1, 3, 4), correction=0)
    return mean, var


def affine_relu(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """As :func:`metafilm.engine.affine.affine_relu`."""
    gain, shift = (value[:, None, :, None, None].to(x.dtype) for value in (gain, shift))
    return torch.addcmul(shift, x.unflatten(0, (len(gain), -1)), gain).flatten(0, 1).relu()


def pull_back(function: Callable[..., Any], inputs: tuple[Tensor, ...], grads: Any) -> tuple[Tensor, ...]:
    """The inputs' gradients where ``grads`` are those of the function's outputs, under any transform."""
    return vjp(function, *inputs)[1](grads)
