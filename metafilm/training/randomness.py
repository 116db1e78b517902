"""What dropout and stochastic depth draw, and whatever else asks PyTorch for random numbers in training.

Like an episode it is a pure function of the seed and of a number, on a GPU too: not of what was drawn before,
and so not of stops, and a checkpoint holds none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from episodes import counter

OUTER, PLAIN = 1002, 1003  # streams of random numbers beside that of noise.py


@contextmanager
def undrawn(device: torch.device) -> Iterator[None]:
    """PyTorch's generators of the CPU and of ``device``, afterwards as if nothing had been drawn within."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def drawn(seed: int, number: int, stream: int, device: torch.device) -> Iterator[None]:
    """PyTorch's random numbers as the seed and a number say, of one of the streams; afterwards as before."""
    with undrawn(device):
        torch.manual_seed(int(counter.words(seed, [number], stream)[0]))
        yield
