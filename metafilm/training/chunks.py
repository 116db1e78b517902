"""How many tasks go through the network together: few enough for the cache, enough to keep calls from costing
more than their work. It depends on network, episode and machine, so it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from episodes import Episode
from metafilm import norms
from metafilm.config.settings import Outer
from metafilm.learner.learner import MetaFiLM

Gradient = Callable[[list[Episode], int], Any]

MEMORY = 28 * 2**20  # bytes that tasks that go together keep for the backward pass; one task may need more
SLACK = 1.02  # a smaller chunk may be this much slower: it needs less memory
ROUNDS = 3
SECONDS = 10.0  # give up measuring after this long


class Chunks(NamedTuple):
    """``tasks``: whose support sets go through the inner loop together; ``queries``: whose query sets go
    through the network together."""

    tasks: int
    queries: int

    @classmethod
    def of(cls, settings: Outer) -> Chunks:
        """What the settings say, one task where they leave it open."""
        tasks = settings.task_chunk or 1
        return cls(tasks, settings.query_chunk or tasks)


def measure(
    learner: MetaFiLM, settings: Outer, batch: Callable[[int], list[Episode]], gradient: Gradient
) -> Chunks:
    """Time the outer gradient under chunks of 1, 2, 4 ... tasks; the weights stay as they are.

    Args:
        learner, settings: what is trained, and how.
        batch: chunk size -> the first meta-batch in chunks of that size, all of one shape.
        gradient: episodes, query chunk -> adds their outer gradient to the parameters'.

    Returns:
        The smallest chunks within 2 % of the fastest, among those that don't keep more than 28 MB for their
        backward pass (or one task, where one alone needs more). What the settings name is taken as it is,
        and compiled code takes task by task.
    """
    if settings.task_chunk or settings.compile:
        return Chunks.of(settings)
    sizes = [1]
    while sizes[-1] * 2 <= settings.meta_batch:
        sizes.append(sizes[-1] * 2)
    if settings.meta_batch not in sizes:
        sizes.append(settings.meta_batch)
    adapting, querying = bytes_kept(learner, batch(1)[0], settings.precision)
    candidates = sorted(
        {
            Chunks(size, settings.query_chunk or queries)
            for size in sizes
            for queries in {1, size}  # the two ends alone: each candidate costs time to measure
            if size * adapting <= max(MEMORY, adapting) and queries * querying <= max(MEMORY, querying)
        }
    )
    if len(candidates) == 1:
        return candidates[0]
    times = dict.fromkeys(candidates, float("inf"))
    begin = time.perf_counter()
    for turn in range(ROUNDS + 1):  # the first round warms up
        for chunks in candidates:
            if turn and time.perf_counter() - begin > SECONDS:
                break
            episodes = batch(chunks.tasks)[:1]
            seconds = _seconds(learner, gradient, chunks, episodes) / episodes[0].tasks
            # what came first came cold; larger chunks count at once, so that giving up early leaves a choice
            if turn or chunks.tasks > 1:
                # the least: other work on the machine only ever adds
                times[chunks] = min(times[chunks], seconds)
    best = min(times.values())
    return min(chunks for chunks, seconds in times.items() if seconds <= SLACK * best)


def bytes_kept(learner: MetaFiLM, episode: Episode, precision: str = "float32") -> tuple[int, int]:
    """What one task keeps in memory for its backward pass: while it is adapted, and for its queries."""
    kept: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        # views of one tensor share its memory, which is kept once
        storage = value.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return value.detach()  # an output kept with its graph would keep the graph for ever

    learner.train()
    episode = episode.to(learner.mean.device)
    try:
        with (
            learner.in_precision(precision),
            torch.autograd.graph.saved_tensors_hooks(note, lambda value: value),
        ):
            films = learner.adaptation(episode).films[-1]
            adapting = sum(kept.values())
            kept.clear()
            ends = {name: value.detach().requires_grad_() for name, value in films.items()}
            next(learner.predictions(episode, [ends]))
        return adapting, sum(kept.values())
    finally:
        # measuring must leave no trace in the running averages
        norms.discard(learner.backbone)


def _seconds(learner: MetaFiLM, gradient: Gradient, chunks: Chunks, episodes: list[Episode]) -> float:
    begin = time.perf_counter()
    try:
        gradient(episodes, chunks.queries)
        if learner.mean.is_cuda:
            torch.cuda.synchronize(learner.mean.device)
        return time.perf_counter() - begin
    finally:
        learner.zero_grad(set_to_none=True)
        norms.discard(learner.backbone)
