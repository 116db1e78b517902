"""Interleaved timing: every system once per round, so that a slow minute of the machine is everybody's."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class System:
    """One contestant: a call of ``run`` does the work for ``tasks`` tasks.

    ``variants``: other ways for the same system to do the same work (memory layout, tasks per pass);
    :func:`choose` keeps the fastest.
    """

    name: str
    run: Callable[[], object]
    tasks: int
    precision: str = "float32"
    note: str = ""
    variants: tuple[System, ...] = field(default=(), repr=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.precision


Samples = dict[tuple[str, str], list[float]]
"""(system, precision) -> seconds per task, one entry per round."""


class Failed(Exception):
    """A system that can do the work in none of its variants; says why."""


@contextmanager
def _short_collections() -> Iterator[None]:
    """Leave what is there already (modules, models) out of garbage collections: they take 0.1 s otherwise."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def seconds_per_task(system: System) -> float:
    """One timed call."""
    gc.collect()  # a graph with cycles is cleared on its own system's time or nobody's
    begin = time.perf_counter()
    system.run()
    return (time.perf_counter() - begin) / system.tasks


def choose(system: System, slow: float = 2.0) -> System:
    """The fastest of a system's variants, measured now: a warm-up call each, then the better of two.

    A call that lasts longer than ``slow`` seconds is not repeated. A variant that can't run is left out.

    Raises:
        Failed: none of them can.
    """
    found: list[tuple[float, System]] = []
    refusals: list[str] = []
    for variant in system.variants or (system,):
        try:
            best = seconds_per_task(variant)
            for _ in range(2):
                if best * variant.tasks < slow:
                    best = min(best, seconds_per_task(variant))
        except Exception as error:  # whatever a peer may raise
            refusals.append(f"{variant.note}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
            continue
        found.append((best, variant))
    if not found:
        raise Failed(f"{system.name} ({system.precision}): {'; '.join(refusals)}")
    best, chosen = min(found, key=lambda pair: pair[0])
    notes = [system.note]
    if len(system.variants) > 1:
        others = ", ".join(f"{v.note} {t * 1e3:.3g} ms" for t, v in found if v is not chosen)
        notes.append(f"{chosen.note}, chosen by measurement ({best * 1e3:.3g} ms; {others or 'alone'})")
        if refusals:
            notes.append(f"could not run {'; '.join(refusals)}")
    elif chosen is not system:
        notes.append(chosen.note)
    return replace(
        system, run=chosen.run, tasks=chosen.tasks, note="; ".join(n for n in notes if n), variants=()
    )


def choose_all(systems: Sequence[System]) -> tuple[list[System], list[str]]:
    """The systems that can run, each in its fastest variant, and why the others can't."""
    chosen, missing = [], []
    with _short_collections():
        for system in systems:
            say(f"  choosing: {system.name} {system.precision}")
            try:
                chosen.append(choose(system))
            except Failed as failure:
                missing.append(str(failure))
                say(f"  left out: {failure}")
    return chosen, missing


def interleave(systems: Sequence[System], rounds: int, warm_up: int = 2) -> Samples:
    """Seconds per task of each system in each round; every round runs each system once, in turn."""
    samples: Samples = {system.key: [] for system in systems}
    with _short_collections():
        for number in range(-warm_up, rounds):
            say(f"  round {number + 1} of {rounds}" if number >= 0 else "  warm-up round")
            for system in systems:
                seconds = seconds_per_task(system)
                if number >= 0:
                    samples[system.key].append(seconds)
    return samples


def say(line: str) -> None:
    """Progress, kept apart from the tables."""
    print(line, file=sys.stderr, flush=True)
