"""What an arm gains over the configuration itself on the same tasks: their own differences, whose interval is
much narrower than those of the two scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metafilm.evaluation import interval

Record = Mapping[str, Any]


def bases(records: Iterable[Record]) -> dict[tuple[Any, ...], Record]:
    """Of each training of a configuration as it stands that is scored: its record, by :func:`group`."""
    return {
        group(record): record
        for record in records
        if not record["changes"] and record["encoder_support"] == "own" and scored(record)
    }


def scored(record: Record) -> bool:
    """Whether a record has the score of each task: it has not failed, and is not of a version without."""
    return not record["failed"] and "scores" in record


def group(record: Record) -> tuple[Any, ...]:
    """What arms share that are compared: configuration, training classes, seed."""
    return record["settings"]["name"], record["classes"], record["seed"]


def differences(record: Record, base: Record | None) -> list[float] | None:
    """What a record has over its base, task by task, in what is better; None: one of the two has no scores,
    or the record is the base."""
    if base is None or record is base or not scored(record):
        return None
    sign = -1 if record["measure"] == "mse" else 1
    # of other numbers of episodes the tasks that both have
    return [sign * (own - of_base) for own, of_base in zip(record["scores"], base["scores"], strict=False)]


def over_base(record: Record, base: Record | None) -> dict[str, float | None]:
    """``gain`` and ``gain_ci95`` of a record."""
    found = differences(record, base)
    if found is None:
        return {"gain": None, "gain_ci95": None}
    return {"gain": sum(found) / len(found), "gain_ci95": interval(found)}


def across(seeds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The mean over tasks and seeds, and the half width of its interval.

    Every seed is scored on the same tasks, so that their intervals are not independent: a task's scores are
    averaged first. What trainings of other seeds differ by is in neither.
    """
    tasks = [sum(values) / len(values) for values in zip(*seeds, strict=False)]
    return sum(tasks) / len(tasks), interval(tasks)
