"""Where a script trains and scores: on the CPU, or on a GPU."""

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, get_args

import torch
from torch import Tensor, nn

from metafilm.engine.device import DeviceName, device_named

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

NAMES = get_args(DeviceName)
_chosen = torch.device("cpu")


def choose(name: DeviceName) -> None:
    """Where this process trains: one of `NAMES`; `auto` is a GPU where PyTorch sees one. On a GPU
    convolutions stay in full precision but where a script asks for half.

    Raises:
        MetafilmError: there is no GPU.
    """
    global _chosen
    _chosen = device_named(name)
    torch.backends.cudnn.allow_tf32 = False


def placed(model: M) -> M:
    """The model on the chosen device."""
    return model.to(_chosen)


def chosen() -> torch.device:
    return _chosen


def of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def beside(model: nn.Module, examples: T) -> T:
    """A dataclass of examples with its tensors on the model's device."""
    assert is_dataclass(examples)
    found = {field.name: getattr(examples, field.name) for field in fields(examples)}
    moved = {k: v.to(of(model)) for k, v in found.items() if isinstance(v, Tensor)}
    return replace(examples, **moved)


def half(model: nn.Module, on: bool) -> torch.autocast:
    """The context in which the model runs in half precision, where it allows."""
    return torch.autocast(of(model).type, torch.bfloat16, on)
