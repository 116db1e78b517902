"""What an arm gains over the configuration itself on the same tasks: their own differences, whose interval is
much narrower than those of the two scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import variance
from typing import Any

from metafilm.evaluation import interval

SEEDS = 3  # whose scores have an interval of their own
DECAYS = {"outer.weight_decay", "outer.encoder_weight_decay"}
LITTLE = 0.02  # of a weight, in a whole training
ALIKE = 4  # trainings, the fewest that tell what chance does

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Yardstick:
    """What the arms of a group are compared with: the score of each task, by the configuration as it stands,
    or, where enough trainings differ from it by next to nothing, the mean over them and it: one training may
    be lucky, and all gains would be of its luck.

    ``trainings``: how many of them.
    """

    record: Record
    scores: Sequence[float]
    trainings: int


def bases(records: Iterable[Record]) -> dict[tuple[Any, ...], Yardstick]:
    """By :func:`group`, where the configuration as it stands is scored."""
    records = list(records)
    alike = _alike(records)
    found = {}
    for record in records:
        if not record["changes"] and record["encoder_support"] == "own" and scored(record):
            of = [record] if len(alike.get(group(record), ())) < ALIKE else alike[group(record)]
            tasks = zip(*(one["scores"] for one in of), strict=False)
            found[group(record)] = Yardstick(record, [sum(each) / len(of) for each in tasks], len(of))
    return found


def scored(record: Record) -> bool:
    """Whether a record has the score of each task: it has not failed, and is not of a version without."""
    return not record["failed"] and "scores" in record


def group(record: Record) -> tuple[Any, ...]:
    """What arms share that are compared: configuration, training classes, seed."""
    return record["settings"]["name"], record["classes"], record["seed"]


def differences(record: Record, base: Yardstick | None) -> list[float] | None:
    """What a record has over its base, task by task, in what is better; None: one of the two has no scores,
    or the record is all that the base is."""
    if base is None or not scored(record) or (record is base.record and base.trainings == 1):
        return None
    sign = -1 if record["measure"] == "mse" else 1
    # of other numbers of episodes the tasks that both have
    return [sign * (own - of_base) for own, of_base in zip(record["scores"], base.scores, strict=False)]


def with_gains(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The records, each with what it gains over its base as the records are now."""
    records = list(records)
    base = bases(records)
    return [{**record, **over_base(record, base.get(group(record)))} for record in records]


def over_base(record: Record, base: Yardstick | None) -> dict[str, float | None]:
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
    each: dict[tuple[str, int | None], list[float]] = {}
    for (name, classes, _), alike in _alike(records).items():
        if len(alike) >= ALIKE:
            means = [sum(record["scores"]) / len(record["scores"]) for record in alike]
            each.setdefault((name, classes), []).append(variance(means))
    return {at: (sum(variances) / len(variances)) ** 0.5 for at, variances in each.items()}


def _alike(records: Iterable[Record]) -> dict[tuple[Any, ...], list[Record]]:
    """Of each group the trainings that differ from the configuration by next to nothing, and itself."""
    own = [record for record in records if scored(record) and record["encoder_support"] == "own"]
    itself = {group(record): record for record in own if not record["changes"]}
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in own:
        base = itself.get(group(record))
        if base is not None and _decays_alike(record, base):
            found.setdefault(group(record), []).append(record)
    return found


def _decays_alike(record: Record, base: Record) -> bool:
    """Whether nothing but decays is changed, and AdamW takes next to the same of a weight by them."""
    outer, of_base = record["settings"].get("outer"), base["settings"].get("outer")
    if outer is None or of_base is None or outer["optimiser"] != "adamw":
        return False
    if not set(record["changes"]) <= DECAYS:
        return False
    # of learning rates that warm up and follow a cosine, about the half of as many of the highest
    rates = outer["learning_rate"] * outer["iterations"] / 2
    names = [name.removeprefix("outer.") for name in DECAYS]
    return all(rates * abs(outer[name] - of_base[name]) <= LITTLE for name in names)
