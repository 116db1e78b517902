"""The first convolution of somebody else's network, computed once for many passes over the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metafilm.film import undisturbed


@dataclass(frozen=True)
class Stem:
    """Images ``[B, C, H, W]`` as the network takes them, and what its first convolution makes of them.

    ``version``: of the maps, which what follows may overwrite (an activation in place): then they are made
    anew.
    """

    images: Tensor
    maps: Tensor
    version: int

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context the first convolution gives these maps instead of computing them."""
        token = _present.set(self)
        try:
            yield
        finally:
            _present.reset(token)


_present: ContextVar[Stem | None] = ContextVar("metafilm_stem", default=None)


class _First:
    """The first convolution's ``forward``; an object, so that a deep copy gets one of its own module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            found = _present.get()
            if found is not None and x is found.images and found.maps._version == found.version:
                return found.maps
        return type(self.module).forward(self.module, x)


def first_convolution(network: nn.Module, run: Callable[[], Tensor]) -> tuple[str | None, Tensor]:
    """The name of the convolution that takes what the network takes, which then gives way to a :class:`Stem`;
    None where there is none. And what ``run``, a pass through the network, gives.
    """
    given: list[Tensor] = []
    takers: list[str] = []
    handles = [network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))]

    def note(name: str) -> Callable[..., None]:
        return lambda _, inputs: takers.append(name) if inputs[0] is given[0] else None

    convolutions = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    try:
        handles += [module.register_forward_pre_hook(note(name)) for name, module in convolutions.items()]
        out = run()
    finally:
        for handle in handles:
            handle.remove()
    if len(takers) != 1:
        return None, out
    module = convolutions[takers[0]]
    module.forward = _First(module)  # type: ignore[assignment]
    return takers[0], out


def begun(convolution: nn.Module, images: Tensor) -> Stem | None:
    """The stem of these images; None where the convolution learns or somebody hooked into it, FiLM too."""
    if any(parameter.requires_grad for parameter in convolution.parameters()):
        return None
    if not undisturbed(convolution):
        return None
    maps = type(convolution).forward(convolution, images)
    return None if maps.is_inference() else Stem(images, maps, maps._version)
