"""Which device a name means."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from metafilm.errors import MetafilmError

DeviceName = Literal["auto", "cpu", "cuda"]


def device_named(name: DeviceName) -> torch.device:
    """``auto`` is a GPU where PyTorch sees one. Raises MetafilmError: ``cuda`` where it sees none, or another
    name."""
    if name not in get_args(DeviceName):
        raise MetafilmError(f"device is {name!r}; use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise MetafilmError("device cuda, but PyTorch sees no GPU here; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def readable(x: torch.Tensor) -> bool:
    """Whether a tensor's numbers can be looked at; not while work is being recorded as a CUDA graph."""
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())
