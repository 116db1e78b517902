"""What an arm gains over the configuration itself on the same tasks: their own differences, whose interval is
much narrower than those of the two scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import variance
from typing import Any

from metafilm.evaluation import interval

SEEDS = 3  # whose scores have an interval of their own
DECAYS = {"outer.weight_decay", "outer.encoder_weight_decay"}
LITTLE = 0.02  # of a weight, in a whole training
ALIKE = 4  # trainings, the fewest that tell what chance does

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
    averaged first. From three seeds on the interval is that over seeds, where it is wider: of fewer it can't
    say what trainings of other seeds differ by.
    """
    tasks = [sum(values) / len(values) for values in zip(*seeds, strict=False)]
    wide = interval([sum(values) / len(values) for values in seeds]) if len(seeds) >= SEEDS else 0.0
    return sum(tasks) / len(tasks), max(interval(tasks), wide)


def chance(records: Iterable[Record]) -> dict[tuple[str, int | None], float]:
    """What the scores of two trainings differ by for no reason, by configuration and training classes: the
    standard deviation of those that differ by weight decays of next to nothing, within each seed."""
    alike: dict[tuple[Any, ...], list[float]] = {}
    for record in records:
        if scored(record) and record["encoder_support"] == "own" and _decays_little(record):
            alike.setdefault(group(record), []).append(sum(record["scores"]) / len(record["scores"]))
    each: dict[tuple[str, int | None], list[list[float]]] = {}
    for (name, classes, _), means in alike.items():
        if len(means) >= ALIKE:
            each.setdefault((name, classes), []).append(means)
    return {at: (sum(variance(means) for means in seeds) / len(seeds)) ** 0.5 for at, seeds in each.items()}


def _decays_little(record: Record) -> bool:
    """Whether nothing but decays is changed, and AdamW takes next to nothing of a weight by them."""
    outer = record["settings"].get("outer")
    if outer is None or outer["optimiser"] != "adamw" or not set(record["changes"]) <= DECAYS:
        return False
    # of learning rates that warm up and follow a cosine, about the half of as many of the highest
    rates = outer["learning_rate"] * outer["iterations"] / 2
    return all(rates * outer[name.removeprefix("outer.")] <= LITTLE for name in DECAYS)
