"""What an ablation says: a table and a figure for each question, from the records of its arms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metafilm.laboratory.arms import QUESTIONS
from metafilm.laboratory.drawing import forest
from metafilm.laboratory.gains import Record, Yardstick, across, bases, chance, differences, group, scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = dict[str, float]
Answers = dict[str, dict[str, dict[str, dict[int | None, Cell]]]]
"""Configuration -> question -> arm -> training classes (None: all) -> means over seeds: ``new`` and ``known``
(validation and training classes), ``gap``, ``gain`` (over the configuration itself, where it is another, or
over so many trainings that are like it, ``alike``), the half widths of their intervals, ``new_ci95`` and so
on, ``seeds``, and ``failed``: seeds without a score; where enough trainings differ by chance alone, the
standard deviation of their scores, ``chance``."""


def answers(records: Iterable[Record]) -> Answers:
    """The records by question, arms in the question's order; of several seeds the mean. Those of a version
    that kept no score of each task are left out."""
    records = [record for record in records if record["failed"] or scored(record)]
    base, by_chance = bases(records), chance(records)
    collected: dict[tuple[str, str, int, str, int | None], list[Record]] = {}
    for record in records:
        name, classes, _ = group(record)
        for question, arms in record.get("answers", {}).items():
            for arm in arms if question in QUESTIONS else ():
                at = (name, question, arm["place"], arm["arm"], classes)
                collected.setdefault(at, []).append(record)
    order = list(QUESTIONS)
    said: Answers = {}
    for at in sorted(collected, key=lambda at: (order.index(at[1]), at[2])):
        name, question, _, arm, classes = at
        here = said.setdefault(name, {}).setdefault(question, {}).setdefault(arm, {})
        here[classes] = _cell(collected[at], base)
        if (name, classes) in by_chance:
            here[classes]["chance"] = by_chance[name, classes]
    return said


def _cell(records: Sequence[Record], base: Mapping[tuple[Any, ...], Yardstick]) -> Cell:
    """One arm on so many classes: its records are of several seeds."""
    rows = [record for record in records if scored(record)]
    cell: Cell = {"seeds": len(rows), "failed": len(records) - len(rows)}
    if not rows:
        return cell
    cell["new"], cell["new_ci95"] = across([row["scores"] for row in rows])
    cell["known"], cell["known_ci95"] = across([row["training_classes_scores"] for row in rows])
    cell["gap"] = cell["known"] - cell["new"]
    cell["gap_ci95"] = math.hypot(cell["known_ci95"], cell["new_ci95"])  # other tasks, of other classes
    pairs = [differences(row, base.get(group(row))) for row in rows]
    if found := [pair for pair in pairs if pair is not None]:
        cell["gain"], cell["gain_ci95"] = across(found)
        cell["alike"] = min(base[group(row)].trainings for row in rows if group(row) in base)
    return cell


def tables(said: Answers, missing: int = 0) -> str:
    """Markdown: for each configuration and question a row per arm, a column per number of training classes,
    each ``validation classes ± 95 %; gain over the base ± 95 % (training classes, gap)``."""
    lines = [
        "validation classes ± 95 %; gain over the configuration itself, or over the mean of the trainings "
        "that are like it, on the same tasks ± 95 % (training classes, gap); means over seeds"
    ]
    if missing:
        lines += [f"{missing} arms are not there yet"]
    for name, questions in said.items():
        lines += _by_chance(name, [cells for arms in questions.values() for cells in arms.values()])
        for question, arms in questions.items():
            columns = sorted({classes for row in arms.values() for classes in row}, key=_order)
            lines += ["", f"**{name}: {QUESTIONS[question].title}** (`{question}`)", ""]
            lines += ["| arm | " + " | ".join(_classes(count) for count in columns) + " |"]
            lines += ["|---|" + "---|" * len(columns)]
            for arm, row in arms.items():
                cells = [_shown(row[count]) if count in row else "–" for count in columns]
                lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _by_chance(name: str, arms: Sequence[Mapping[int | None, Cell]]) -> list[str]:
    """What scores differ by for no reason, where it is known."""
    known = {count: cell["chance"] for cells in arms for count, cell in cells.items() if "chance" in cell}
    if not known:
        return []
    each = [f"{known[count]:.2f} with {_classes(count)}" for count in sorted(known, key=_order)]
    return [
        "",
        f"{name}: trainings whose weight decays differ by next to nothing have scores with a standard "
        f"deviation of {', '.join(each)}. Gains are over their mean. Of one seed, one of less than about "
        "three times that is chance.",
    ]


def figure(questions: Mapping[str, Mapping[str, Mapping[int | None, Cell]]]) -> Figure:
    """Of one configuration: a line for each arm, under its question, with what it gains over the
    configuration itself and its gap, a colour for each number of training classes. A band of each colour
    shows what chance does, three standard deviations of a mean over the seeds either way."""
    columns = sorted(
        {count for arms in questions.values() for row in arms.values() for count in row}, key=_order
    )
    groups = {
        QUESTIONS[question].title: {arm: _points(row, arms.values()) for arm, row in arms.items()}
        for question, arms in questions.items()
    }
    cells = [
        (count, cell) for arms in questions.values() for row in arms.values() for count, cell in row.items()
    ]
    known = [(count, cell) for count, cell in cells if "chance" in cell and cell["seeds"]]
    seeds = {count: min(cell["seeds"] for other, cell in known if other == count) for count, _ in known}
    bands = {count: 3 * _of_a_gain(cell) / seeds[count] ** 0.5 for count, cell in known}
    return forest(
        groups,
        {count: _classes(count) for count in columns},
        {"gain": "gain on validation classes", "gap": "training − validation"},
        bands={"gain": bands},
    )


def _of_a_gain(cell: Cell) -> float:
    """The standard deviation that chance gives a gain, over a mean of several trainings."""
    return cell["chance"] * (1 + 1 / cell.get("alike", math.inf)) ** 0.5


def _points(
    row: Mapping[int | None, Cell], others: Iterable[Mapping[int | None, Cell]]
) -> dict[int | None, dict[str, tuple[float, float]]]:
    """What a line shows: values and half widths of their intervals. The configuration itself, which others
    gain over, gains 0; where it has no score nothing is known to gain."""
    compared = {count for other in others for count, cell in other.items() if "gain" in cell}
    found = {}
    for count, cell in row.items():
        if cell["seeds"]:
            nothing = 0.0 if count in compared else math.nan
            gain = cell.get("gain", nothing), cell.get("gain_ci95", nothing)
            found[count] = {"gain": gain, "gap": (cell["gap"], cell["gap_ci95"])}
    return found


def _shown(cell: Cell) -> str:
    seeds = f"{cell['seeds']:g}/{cell['seeds'] + cell['failed']:g} seeds"
    if not cell["seeds"]:
        return f"failed ({seeds})"
    text = f"{cell['new']:.2f} ± {cell['new_ci95']:.2f}"
    if "gain" in cell:
        text += f"; {cell['gain']:+.2f} ± {cell['gain_ci95']:.2f}"
    text += f" ({cell['known']:.2f}, {cell['gap']:+.2f})"
    return f"{text}, {seeds}" if cell["failed"] else text


def _classes(count: int | None) -> str:
    return "all classes" if count is None else f"{count} classes"


def _order(count: int | None) -> float:
    return float("inf") if count is None else count
