"""How many steps a budget allows, measured once, and under which settings: kept in a row's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from episodes import Episode
from metafilm.errors import RunError
from metafilm.storage.atomic import atomic_write
from metafilm.training.plain import Pretraining
from scripts.records import commit

FIRST = 4  # steps that are not measured: the first are slower, and have batches that were built before
PROBE = 16  # steps that a rate is measured on


@dataclass(frozen=True)
class Plan:
    """What a training was begun with.

    Attributes:
        amount: of the budget, images or seconds.
        steps: of the classification stage, and of the outer loop.
        threads, commit: of the process that began it; None: of a version that did not keep them.
        settings: that nothing else in the folder would tell; None likewise, or there are none.
    """

    amount: float
    steps: tuple[int, int]
    threads: int | None = None
    commit: str | None = None
    settings: dict[str, Any] | None = None

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
                kept = {name: found.get(name) for name in ("threads", "commit", "settings")}
                return cls(float(found["amount"]), (before, after), **kept)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file} is damaged; delete {folder} to have the row made anew") from error
        raise RunError(
            f"{file} is of an older version, without its budget; delete {folder} to have the row made anew"
        )

    def write(self, folder: Path) -> None:
        """Into a row's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / "plan.json", (json.dumps(asdict(self)) + "\n").encode())


def kept(
    folder: Path,
    amount: float,
    steps: Callable[[], tuple[int, int]],
    settings: dict[str, Any] | None = None,
) -> Plan:
    """The folder's plan, or one of so many steps: another measurement would give another.

    Raises:
        RunError: it was begun with other settings, or on another number of threads.
    """
    threads, asked = torch.get_num_threads(), json.loads(json.dumps(settings))
    plan = Plan.read(folder)
    if plan is None:
        plan = Plan(amount, steps(), threads, commit(), asked)
        plan.write(folder)
        return plan
    if plan.threads not in (None, threads):
        raise RunError(
            f"{folder} was begun on {plan.threads} threads, not {threads}; give --threads "
            f"{plan.threads}, or choose another --folder"
        )
    if plan.settings is not None and plan.settings != asked:
        asked = asked or {}
        names = sorted(plan.settings.keys() | asked.keys())
        differing = [name for name in names if plan.settings.get(name) != asked.get(name)]
        raise RunError(
            f"{folder} was begun with other settings ({', '.join(differing)}); delete it to have the row "
            "made anew, or choose another --folder"
        )
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
