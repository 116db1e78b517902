"""Several processes that train one learner: PyTorch's own process group, and what the toolkit asks of it.

Episodes are shared out by their number; each process adds up its part of the outer gradient, and one explicit
sum over the processes makes it the meta-batch's. (The hooks of ``DistributedDataParallel`` don't fire under
``autograd.grad``: pytorch issues 47562 and 63740.) Start it by ``torchrun --nproc-per-node N -m metafilm
train ...``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NoReturn

import torch
from torch import Tensor
from torch import distributed as dist

from metafilm.errors import MetafilmError, first_line

TIMEOUT = timedelta(minutes=30)  # for a process that hangs; one that dies is noticed at once


class WorkerLost(MetafilmError):
    """Another process of the run has died, or does not answer any more."""


class Group:
    """The processes of a run, numbered from 0; by default this one alone.

    Every method that talks to the others must be called by all of them in the same order. Raises WorkerLost
    when one of them is gone.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files and shows its progress."""
        return self.rank == 0

    def share(self, numbers: Sequence[int]) -> list[int]:
        """This process's part of some episode numbers: every ``size``-th."""
        return list(numbers[self.rank :: self.size])

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place, wherever the values lie; the same bits on each."""
        if self.size > 1:
            sent = values.to(self.device)
            try:
                dist.all_reduce(sent)
            except RuntimeError as error:
                raise WorkerLost(_lost(error)) from error
            if sent is not values:
                values.copy_(sent)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        self.sum(torch.zeros(1, device=self.device))

    def send(self, content: bytes | None) -> bytes:
        """The leader's bytes, on every process."""
        if self.size == 1:
            assert content is not None
            return content
        try:
            length = torch.tensor([len(content or b"")], device=self.device)
            dist.broadcast(length, 0)
            data = torch.empty(int(length), dtype=torch.uint8)
            if content is not None and self.leads:
                data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            data = data.to(self.device)
            dist.broadcast(data, 0)
        except RuntimeError as error:
            raise WorkerLost(_lost(error)) from error
        return data.cpu().numpy().tobytes()

    @property
    def device(self) -> torch.device:
        """Where what is sent must lie: a GPU of its own under NCCL, else the CPU."""
        if self.size > 1 and dist.get_backend() == "nccl":
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("cpu")

    def sum_gradients(self, parameters: Iterable[Tensor], flags: Sequence[float] = ()) -> list[float]:
        """Replace each parameter's gradient by its sum over the processes; one message for all.

        A gradient that no process has stays None. ``flags`` are summed along and returned.
        """
        values = list(parameters)
        if self.size == 1:
            return list(flags)
        have = [float(value.grad is not None) for value in values]
        dtype, device = values[0].dtype, values[0].device
        head = torch.tensor([*have, *flags], dtype=dtype, device=device)
        parts = [
            (torch.zeros_like(value) if value.grad is None else value.grad).flatten().to(dtype)
            for value in values
        ]
        message = self.sum(torch.cat([head, *parts]))
        head, body = message[: len(head)].tolist(), message[len(head) :]
        sums = body.split([value.numel() for value in values])
        for value, present, total in zip(values, head, sums, strict=False):
            # in the parameter's own layout, which fused optimisers take for granted
            value.grad = torch.empty_like(value).copy_(total.view_as(value)) if present else None
        return head[len(values) :]


def start() -> Group:
    """Join the other processes that torchrun started; alone where it started none.

    The backend is NCCL where every process has a GPU of its own, else gloo.

    Raises:
        MetafilmError: the processes don't find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Group()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
    gpus = torch.cuda.is_available() and torch.cuda.device_count() >= local
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if gpus else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MetafilmError(
            f"process {os.environ['RANK']} of {size} did not find the others: {first_line(error)}"
        ) from error
    return Group(dist.get_rank(), dist.get_world_size())


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process of a group, with everything written and the group left.

    Without Python's own way out: there PyTorch's threads of a process group abort the process now and then
    ("terminate called without an active exception", 1 run in 12 with torch 2.15 and gloo), and torchrun takes
    a run that has succeeded for one that failed.
    """
    stop()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _lost(error: Exception) -> str:
    return f"another process of this run has died or does not answer ({first_line(error)})"
