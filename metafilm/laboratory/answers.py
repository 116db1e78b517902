"""What an ablation says: a table and a figure for each question, from the records of its arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metafilm.laboratory.ablation import Job
from metafilm.laboratory.arms import QUESTIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Answers = dict[str, dict[str, dict[str, dict[int | None, dict[str, float]]]]]
"""Configuration -> question -> arm -> training classes (None: all) -> means over seeds: ``new`` and ``known``
(validation and training classes), ``gap``, the half widths ``new_ci95``, ``gap_ci95``, and ``seeds``."""


def answers(found: Iterable[tuple[Job, Mapping[str, Any]]]) -> Answers:
    """The records by question; of several seeds the mean. Arms that diverged are left out."""
    collected: dict[tuple[str, str, str, int | None], list[Mapping[str, Any]]] = {}
    for job, record in found:
        place = (job.base.config.name, job.question, job.arm.name, job.classes)
        rows = collected.setdefault(place, [])
        if not record["failed"]:
            rows.append(record)
    said: Answers = {}
    for (name, question, arm, classes), rows in collected.items():
        if not rows:
            continue
        measure = rows[0]["measure"]
        here = said.setdefault(name, {}).setdefault(question, {}).setdefault(arm, {})
        # of seeds the mean of independent intervals; what trainings differ by is not in it
        half = {
            end: sum(row[key] ** 2 for row in rows) ** 0.5 / len(rows)
            for end, key in (("new_ci95", "ci95"), ("gap_ci95", "gap_ci95"))
        }
        here[classes] = half | {
            "new": _mean(row[measure] for row in rows),
            "known": _mean(row[f"training_classes_{measure}"] for row in rows),
            "gap": _mean(row["gap"] for row in rows),
            "seeds": len(rows),
        }
    return said


def tables(said: Answers, missing: int = 0) -> str:
    """Markdown: for each configuration and question a row per arm, a column per number of training classes,
    each ``validation classes ± 95 % (training classes, gap)``."""
    lines = ["validation classes ± 95 % (training classes, gap); means over seeds"]
    if missing:
        lines += [f"{missing} arms are not there yet"]
    for name, questions in said.items():
        for question, arms in questions.items():
            columns = sorted({classes for row in arms.values() for classes in row}, key=_order)
            lines += ["", f"**{name}: {QUESTIONS[question].title}** (`{question}`)", ""]
            lines += ["| arm | " + " | ".join(_classes(count) for count in columns) + " |"]
            lines += ["|---|" + "---|" * len(columns)]
            for arm, row in arms.items():
                cells = [_cell(row[count]) if count in row else "–" for count in columns]
                lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(questions: Mapping[str, Mapping[str, Mapping[int | None, Mapping[str, float]]]]) -> Figure:
    """Of one configuration: a row of two panels for each question, validation classes and the gap, over the
    number of training classes."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 3.1 * len(questions)), layout="constrained")
    panels = drawn.subplots(len(questions), 2, squeeze=False)
    for (question, arms), (left, right) in zip(questions.items(), panels, strict=True):
        columns = sorted({classes for row in arms.values() for classes in row}, key=_order)
        for number, (arm, row) in enumerate(arms.items()):
            places = [place for place, count in enumerate(columns) if count in row]
            rows = [row[columns[place]] for place in places]
            # side by side, so that intervals don't hide each other
            across = [place + 0.5 * (number / max(len(arms) - 1, 1) - 0.5) for place in places]
            for axes, value in ((left, "new"), (right, "gap")):
                axes.errorbar(
                    across,
                    [cell[value] for cell in rows],
                    [cell[f"{value}_ci95"] for cell in rows],
                    marker="o",
                    markersize=4,
                    linewidth=1,
                    capsize=2,
                    color=f"C{number % 10}",
                    linestyle="--" if number >= 10 else "-",
                    label=arm,
                )
        left.set_title(QUESTIONS[question].title, loc="left", fontsize=10)
        left.set_ylabel("validation classes")
        right.set_ylabel("training − validation")
        right.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        for axes in (left, right):
            axes.set_xticks(range(len(columns)), [_classes(count) for count in columns])
        right.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn


def _cell(cell: Mapping[str, float]) -> str:
    return f"{cell['new']:.2f} ± {cell['new_ci95']:.2f} ({cell['known']:.2f}, {cell['gap']:+.2f})"


def _classes(count: int | None) -> str:
    return "all classes" if count is None else f"{count} classes"


def _order(count: int | None) -> float:
    return float("inf") if count is None else count


def _mean(values: Iterable[float]) -> float:
    found: Sequence[float] = list(values)
    return sum(found) / len(found)
