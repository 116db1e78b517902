"""Gradient checkpointing under given deviations, which is found out and refused.

It runs part of a network once more in the backward pass. By then :func:`metafilm.film.call` is over and the
network's own deviations are back in their place: the gradients would be those of another network. A
checkpoint around the whole call makes the call once more, which is right.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import torch
from torch import nn

from metafilm.errors import MetafilmError

CHECKPOINTING = "torch.utils.checkpoint"


class _Call(threading.local):
    """The innermost call this thread is in: its code, what packed tensors for gradients when it began (a
    checkpoint packs by itself), and whether gradients were tracked; no code outside of any."""

    code: CodeType | None = None
    packing: Any = None
    tracking = False


_now = _Call()


def _packing() -> Any:
    """What packs the tensors that are saved for the backward pass; None: nothing, or PyTorch doesn't say."""
    top = getattr(getattr(torch._C, "_autograd", None), "_top_saved_tensors_default_hooks", None)
    hooks = None if top is None else top(True)
    return None if hooks is None else hooks[0]


@contextmanager
def call_of(code: CodeType) -> Iterator[None]:
    """Within it, layers run with deviations that are given; ``code``: of the function that gives them."""
    before = _now.code, _now.packing, _now.tracking
    _now.code, _now.packing, _now.tracking = code, _packing(), torch.is_grad_enabled()
    try:
        yield
    finally:
        _now.code, _now.packing, _now.tracking = before


def refuse_recomputation(layer: nn.Module) -> None:
    """Raise MetafilmError where a layer runs in a checkpoint that began within :func:`metafilm.film.call`.

    A checkpoint that is compiled, or in a compiled part of the network, is not seen.
    """
    if torch.compiler.is_compiling() or not _now.tracking or _now.code is None:
        return
    if torch.is_grad_enabled():
        packing = _packing()
        inside = packing is not _now.packing and getattr(packing, "__module__", "") == CHECKPOINTING
    else:  # as in the older, reentrant kind, and in any other part that tracks nothing
        inside = _in_checkpoint(_now.code)
    if inside:
        raise MetafilmError(
            f"gradient checkpointing would run a {type(layer).__name__} of this network once more in the "
            "backward pass, when the deviations given to film.call are no longer in their place; turn it "
            "off, or checkpoint the whole film.call"
        )


def _in_checkpoint(code: CodeType) -> bool:
    """Whether a checkpoint lies between here and the call."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not code:
        if frame.f_globals.get("__name__") == CHECKPOINTING:
            return True
        frame = frame.f_back
    return False
