"""Gradient checkpointing under given deviations, which is found out and refused.

It runs part of a network once more in the backward pass. By then :func:`metafilm.film.call` is over and the
network's own deviations are back in their place: the gradients would be those of another network.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, cast
from weakref import WeakSet, ref

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metafilm.errors import MetafilmError


class Pass:
    """A pass through a network with something in place of its own; it lives as long as its graph.

    It knows the layers whose deviations were given beside the network, which may be a wrapper that is gone by
    the time of the backward pass.
    """

    __slots__ = ("__weakref__", "layers", "network")

    def __init__(self, network: nn.Module, layers: Iterable[nn.Module]) -> None:
        self.network = ref(network)
        self.layers = [ref(layer) for layer in layers]

    def went_through(self, layer: nn.Module) -> bool:
        """Whether the layer is one of those, or somewhere in the network."""
        network = self.network()
        return any(own() is layer for own in self.layers) or (
            network is not None and any(module is layer for module in network.modules())
        )


class _UnderWay(threading.local):
    """How many passes this thread is in the middle of."""

    count = 0


under_way = _UnderWay()
_passes: WeakSet[Pass] = WeakSet()
_adding = threading.Lock()


def remember(network: nn.Module, layers: Iterable[nn.Module], output: Any) -> None:
    """Note the graph that a pass with given deviations has made of its output, if it has made one."""
    made = Pass(network, layers)
    for tensor in (output,) if isinstance(output, Tensor) else tree_leaves(output):
        node = tensor.grad_fn if isinstance(tensor, Tensor) else None
        if node is not None:
            cast(dict, node.metadata)[Pass] = made  # a property, whatever its annotation says
            with _adding:
                _passes.add(made)


def refuse_recomputation(layer: nn.Module) -> None:
    """Raise MetafilmError where a layer runs for a gradient, outside of :func:`metafilm.film.call`, while a
    graph is there that a call has made of its network: it may be that graph's."""
    # only a recomputation tracks gradients in a backward pass; the compiler recomputes by itself, and rightly
    if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
        return
    if under_way.count or not torch.is_grad_enabled():
        return
    with _adding:
        passes = list(_passes)
    if any(made.went_through(layer) for made in passes):
        raise MetafilmError(
            f"gradient checkpointing runs a {type(layer).__name__} of this network once more in the backward "
            "pass, when the deviations given to film.call are no longer in their place; turn it off, or "
            "checkpoint the whole film.call"
        )
