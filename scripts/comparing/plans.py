"""How many steps a budget allows: measured once, and kept in a row's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from episodes import Episode
from metafilm.errors import RunError
from metafilm.storage.atomic import atomic_write
from metafilm.training.plain import Pretraining

FIRST = 4  # steps that are not measured: the first are slower, and have batches that were built before
PROBE = 16  # steps that a rate is measured on


@dataclass(frozen=True)
class Plan:
    """``amount``: of the budget, images or seconds; ``steps``: of the classification stage, and of the outer
    loop."""

    amount: float
    steps: tuple[int, int]

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """The plan of a row's folder. Raises RunError: it is damaged, or an older version's."""
        file = folder / "plan.json"
        if not file.is_file():
            return None
        try:
            found = json.loads(file.read_bytes())
            if not isinstance(found, list):
                before, after = map(int, found["steps"])
                return cls(float(found["amount"]), (before, after))
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file} is damaged; delete {folder} to have the row made anew") from error
        raise RunError(
            f"{file} is of an older version, without its budget; delete {folder} to have the row made anew"
        )

    def write(self, folder: Path) -> None:
        """Into a row's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / "plan.json", (json.dumps(asdict(self)) + "\n").encode())


def kept(folder: Path, amount: float, steps: Callable[[], tuple[int, int]]) -> Plan:
    """The folder's plan, or one of so many steps: another measurement would give another."""
    plan = Plan.read(folder)
    if plan is None:
        plan = Plan(amount, steps())
        plan.write(folder)
    return plan


def amount_of(folder: Path, asked: float | None, usual: float) -> float:
    """The budget of a row: that of its plan, else what is asked for, else the usual one.

    Raises:
        RunError: the plan is of another budget than is asked for.
    """
    plan = Plan.read(folder)
    if plan is None:
        return usual if asked is None else asked
    if asked is not None and asked != plan.amount:
        raise RunError(
            f"{folder} was begun with a budget of {plan.amount:.15g}, not {asked:.15g}; leave --images and "
            "--seconds out, or choose another --folder"
        )
    return plan.amount


def mean_seconds(step: Callable[[list[Episode]], object], ahead: Iterator[list[Episode]]) -> float:
    """Of a step, which takes episodes that are built ahead, as in a training."""
    with closing(ahead):  # type: ignore[type-var]
        for _ in range(FIRST):
            step(next(ahead))
        begin = time.perf_counter()
        for _ in range(PROBE):
            step(next(ahead))
        return (time.perf_counter() - begin) / PROBE


def stage_seconds(stage: Pretraining) -> float:
    """Of a step of the classification stage."""
    return mean_seconds(
        lambda batches: stage.step(batches[0]), stage.source.sampler.prefetch([i] for i in count())
    )
