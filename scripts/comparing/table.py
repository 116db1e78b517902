"""The records of results/compare.json: which there are, what metafilm in full gains over each, a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from metafilm.evaluation import interval

FULL = "metafilm"
FAR = 10.0  # percent of a budget of seconds: a training that missed them by more says so in the table

Record = dict[str, Any]
Kind = tuple[str, str, str]
"""Work, budget and split."""
Named = tuple[str, str, str]
"""Work, budget and system."""


def kind(one: Record) -> Kind:
    return one["work"], one["budget"], one["split"]


def named(one: Record) -> Named:
    return one["work"], one["budget"], one["system"]


def merged(
    before: Sequence[Record], scored: Sequence[Record], asked: Sequence[Named], order: Sequence[Named]
) -> list[Record]:
    """The records of before, with those of the rows asked for in their place, each with its gain.

    Args:
        before: records of an earlier call.
        scored: what there is of any row, with the scores of single tasks.
        asked: rows to take from it.
        order: of all rows.
    """
    kept = {(kind(one), one["system"]): dict(one) for one in before}
    for one in scored:
        if named(one) in asked:
            place = kind(one), one["system"]
            gain = {name: value for name, value in kept.get(place, {}).items() if "gain" in name}
            kept[place] = {name: value for name, value in one.items() if name != "scores"} | gain
    found = [one for one in kept.values() if named(one) in order]
    found.sort(key=lambda one: (order.index(named(one)), one["split"] != "test"))
    each = {(kind(one), one["system"]): one for one in scored}
    return [paired(one, {(kind(other), other["system"]): other for other in found}, each) for one in found]


def paired(
    one: Record, records: dict[tuple[Kind, str], Record], each: dict[tuple[Kind, str], Record]
) -> Record:
    """The record with what metafilm in full has over it, in points, by the tasks' own differences.

    Where the scores of single tasks are not at hand, a gain that is in the record stays, as long as it is the
    difference of the two records' accuracies, and so of these very trainings.
    """
    gain = {name: value for name, value in one.items() if "gain" in name}
    one = {name: value for name, value in one.items() if name not in gain}
    place = kind(one), one["system"]
    ahead = records.get((kind(one), FULL), each.get((kind(one), FULL)))
    if ahead is None or one["system"] == FULL or not alike(ahead, one):
        return one
    both = each.get((kind(one), FULL)), each.get(place)
    if both[0] and both[1] and same(both[0], ahead) and same(both[1], one):
        gains = [a - b for a, b in zip(both[0]["scores"], both[1]["scores"], strict=True)]
        return one | {"metafilm_gain": sum(gains) / len(gains), "metafilm_gain_ci95": interval(gains)}
    if gain and abs(ahead["accuracy"] - one["accuracy"] - gain["metafilm_gain"]) < 1e-6:
        return one | gain
    return one


def alike(one: Record, other: Record) -> bool:
    """Whether two rows are scored on the same tasks."""
    return all(one[name] == other[name] for name in ("work", "split", "seed", "episodes", "queries"))


def same(one: Record, other: Record) -> bool:
    """Whether two records are of one training, scored on the same tasks."""
    return alike(one, other) and one["accuracy"] == other["accuracy"]


def missed(planned: float, real: float) -> dict[str, float]:
    """Of a budget of seconds, and by how many percent the training took longer."""
    return {"planned_seconds": planned, "seconds_missed_by": 100 * (real / planned - 1)}


def markdown(found: Sequence[Record]) -> str:
    """The records as a table."""
    lines = [
        "| work | budget | system | accuracy | metafilm's gain | minutes | images | minutes to target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        gain = "–"
        if "metafilm_gain" in one:
            gain = f"{one['metafilm_gain']:+.2f} ± {one['metafilm_gain_ci95']:.2f}"
        reached = one["minutes_to_target"]
        minutes, off = f"{one['training_seconds'] / 60:.1f}", one.get("seconds_missed_by", 0.0)
        if abs(off) > FAR:
            minutes += f" ({off:+.0f} % of its budget)"
        work = one["work"] if one["split"] == "test" else f"{one['work']} ({one['split']})"
        cells = [work, one["budget"], one["system"]]
        cells += [f"{one['accuracy']:.2f} ± {one['ci95']:.2f}", gain, minutes]
        cells += [f"{one['images']:,}", "–" if reached is None else f"{reached:.1f} ({one['target']:g} %)"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def to_target(found: Sequence[Record]) -> str:
    """The records of time to a validation accuracy, a row for each work and system, the fastest first and
    at the end those that did not reach it."""
    lines = [
        "| task, validation accuracy | system | minutes to it | budgets tried, s | pictures of the last | "
        "test after it |",
        "|---|---|---|---|---|---|",
    ]
    rows = [one for one in found if one["budget"] == "target" and one["split"] == "test"]
    works = list(dict.fromkeys(one["work"] for one in rows))
    rows.sort(key=lambda one: (works.index(one["work"]), one["minutes_to_target"] or math.inf))
    for one in rows:
        reached, whole = one["minutes_to_target"], one["training_seconds"] / 60
        best = max(value for _, value in one["curve"])
        time = f"not in {whole:.0f} ({best:.1f} %)" if reached is None else f"**{reached:.1f}**"
        tried = ", ".join(f"{seconds:g}" for seconds in one["tried_seconds"])
        lines.append(
            f"| {one['work']}, {one['target']:g} % | {one['system']} | {time} | {tried} | "
            f"{one['images']:,} | {one['accuracy']:.2f} ± {one['ci95']:.2f} |"
        )
    return "\n".join(lines)
