"""A training's step recorded once as a CUDA graph and then only played: starting each of its thousand kernels
from Python takes several times as long as they do."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Batched:
    """A step's loss in two parts, so that a GPU can record the second.

    batch: a step's number -> tensors, of the same shapes and types at each step, on the model's device. loss:
    of these, computed on the device alone.
    """

    batch: Callable[[int], tuple[Tensor, ...]]
    loss: Callable[..., Tensor]

    def __call__(self, step: int) -> Tensor:
        return self.loss(*self.batch(step))


class Recorded:
    """Loss and gradients of a step, as ``Batched`` has them; the gradients lie in the parameters' ``grad``,
    which must not be replaced.

    Recording leaves model and random numbers as they are.
    """

    def __init__(self, model: nn.Module, batched: Batched, step: int) -> None:
        self._batch = batched.batch
        random = torch.get_rng_state(), torch.cuda.get_rng_state()
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        self._inputs = tuple(part.clone() for part in batched.batch(step))
        beside = torch.cuda.Stream()  # libraries choose their kernels and take their memory before the record
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                model.zero_grad(set_to_none=True)
                batched.loss(*self._inputs).backward()
        torch.cuda.current_stream().wait_stream(beside)
        model.load_state_dict(kept)
        torch.set_rng_state(random[0])
        torch.cuda.set_rng_state(random[1])
        model.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._value = batched.loss(*self._inputs)
            self._value.backward()

    def __call__(self, step: int) -> Tensor:
        for mine, given in zip(self._inputs, self._batch(step), strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._value
