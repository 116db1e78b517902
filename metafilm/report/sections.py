"""The sections about what came of some tasks: accuracy, deviations, the map, calibration, confusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metafilm.evaluation import calibration_error, reliability
from metafilm.evaluation.calibration import Bin
from metafilm.report.components import principal
from metafilm.report.page.charts import (
    COLOURS,
    bar_chart,
    field_chart,
    interval_chart,
    reliability_chart,
    scatter,
)
from metafilm.report.page.document import Section, note, table
from metafilm.report.page.html import Html, tag
from metafilm.report.scored import CALIBRATED, Scored

WHOLE = "The inner steps of this learner move all weights of its network, which are not drawn here."
MOST_GROUPS = 40  # of a field of confusion
MOST_PAIRS = 12
WORDS = {
    "identity": "before adaptation",
    "encoder": "after the encoder",
    "gate": "after the gate",
    "chosen": "as it adapts by itself",
    CALIBRATED: "at the calibrated temperature",
}


def in_words(stage: str) -> str:
    """A stage as a reader knows it."""
    return WORDS.get(stage, f"after inner {stage}")


def accuracy(scored: Scored, domains: tuple[str, ...]) -> Section:
    """By stage, with intervals and paired gains, of all tasks and of each domain."""
    parts: list[Any] = [_by_stage("All tasks", scored.scores(), scored)]
    by_domain = scored.domains(domains)
    if by_domain:
        parts.append(_by_domain(by_domain, scored))
    what = "Mean squared error" if scored.regression else "Accuracy"
    lead = (
        "Means over tasks with their 95 % intervals. A gain is paired: each task is compared with itself "
        "before adaptation, so its interval is the one to judge the gain by."
    )
    return Section(f"{what} by stage of adaptation", what.split()[0], [tag("p", lead, class_="soft"), *parts])


def _by_stage(title: str, found: dict[str, Any], scored: Scored) -> Html:
    values, halves = found[f"{scored.measure}_by_step"], found["ci95_by_step"]
    gains, errors = found["gain_by_step"], found["gain_ci95_by_step"]
    digits, unit = (4, "") if scored.regression else (2, " %")
    names = [in_words(stage) for stage in scored.stages]
    drawn = interval_chart(
        title, list(zip(names, values, halves, strict=True)), "error" if scored.regression else "accuracy, %"
    )
    rows = []
    for i, name in enumerate(names):
        gain = "–" if i == 0 else f"{gains[i]:+.{digits}f} ± {errors[i]:.{digits}f}"
        rows.append([name, f"{values[i]:.{digits}f} ± {halves[i]:.{digits}f}{unit}", gain])
    head = ["stage", "lower is better" if scored.regression else "accuracy", "gain, paired"]
    return tag("div", drawn, tag("div", table(head, rows, title)), class_="grid2")


def _by_domain(found: dict[str, dict[str, Any]], scored: Scored) -> Html:
    """Each data set or criterion by itself: first and last stage, and the gain."""
    digits = 4 if scored.regression else 2
    rows, gains = [], []
    for name, part in found.items():
        values, halves = part[f"{scored.measure}_by_step"], part["ci95_by_step"]
        gain, error = part["gain_by_step"][scored.farthest], part["gain_ci95_by_step"][scored.farthest]
        shown = [f"{values[i]:.{digits}f} ± {halves[i]:.{digits}f}" for i in (0, scored.farthest)]
        rows.append([name, str(part["episodes"]), *shown, f"{gain:+.{digits}f} ± {error:.{digits}f}"])
        gains.append((name, gain, error))
    head = ["", "tasks", in_words(scored.stages[0]), in_words(scored.stages[scored.farthest]), "gain, paired"]
    title = "Gain of adaptation by data set or criterion"
    drawn = interval_chart(title, gains, "gain, paired", plain=True)
    return tag("div", drawn, tag("div", table(head, rows, title)), class_="grid2")


def deviations(
    scored: Scored, sites: dict[str, tuple[slice, slice]], over_training: Sequence[Html]
) -> Section:
    """By site: how large, and how much of it differs from task to task; and over the training."""
    films = torch.cat(scored.films) if scored.films else torch.zeros(0, 0)
    title = "Deviations"
    if films.numel() == 0 or not bool(films.any()):
        none = "Every deviation is 0: these tasks were not adapted."
        content: list[Any] = [note(WHOLE if scored.whole else none)]
        return Section(title, title, [*content, *over_training])
    charts = []
    for place, what in ((0, "gain δγ"), (1, "bias δβ")):
        rows = [films[:, sites[site][place]] for site in sites]
        whole = [float(value.square().mean().sqrt()) for value in rows]
        own = [float((value - value.mean(0)).square().mean().sqrt()) for value in rows]
        series = [("size over the tasks", whole), ("of which a task's own", own)]
        charts.append(
            bar_chart(f"{what} by site", list(sites), series, "site, first to last", "root mean square")
        )
    lead = (
        "Root mean square over feature maps and tasks. What is left without the mean over the tasks is a "
        "task's own: where it is small, all tasks are shifted alike."
    )
    numbered = [tag("li", site) for site in sites]
    names = tag("details", tag("summary", "Names of the sites"), tag("ol", numbered))
    content = [tag("p", lead, class_="soft"), tag("div", charts, class_="grid2"), names]
    if over_training:
        content.append(tag("div", over_training, class_="grid2"))
    return Section(title, title, content)


def task_map(
    films: Tensor, kinds: Sequence[str], said: Sequence[str], what: str, whole: bool = False
) -> Section:
    """Tasks where their deviations differ most, coloured by what they are of."""
    title, word = "Map of tasks", "Map"
    if films.numel() == 0 or not bool((films - films.mean(0)).abs().max() > 1e-7):
        none = "All tasks have the same deviations: there is nothing to map."
        return Section(title, word, [note(WHOLE if whole else none)])
    places, parts = principal(films)
    common = [name for name, _ in Counter(kind for kind in kinds if kind).most_common(COLOURS)]
    points = [
        (float(x), float(y), common.index(kind) if kind in common else None, text)
        for (x, y), kind, text in zip(places.tolist(), kinds, said, strict=True)
    ]
    labels = (f"first component, {100 * parts[0]:.0f} % of the variance", f"second, {100 * parts[1]:.0f} %")
    drawn = scatter(f"{len(points)} tasks by their deviations, coloured by {what}", points, common, labels)
    lead = (
        "The two directions in which the tasks' deviations differ most (principal components). Tasks that "
        "lie close were adapted alike."
    )
    return Section(title, word, [tag("p", lead, class_="soft"), drawn])


def calibration(scored: Scored) -> Section:
    """How often the predictions were right that were so and so sure, at the last stage; the error at each."""
    rows, drawn = [], []
    for stage in scored.sure:
        bins, error = calibrated(scored, stage)
        sure, right = torch.cat(scored.sure[stage]), torch.cat(scored.right[stage]).double()
        figures = (error, 100 * float(sure.mean()), 100 * float(right.mean()))
        rows.append([in_words(stage), *(f"{value:.{2 - (i > 0)}f} %" for i, value in enumerate(figures))])
        if stage in (scored.stages[-1], CALIBRATED):
            points = [(part.confidence, part.accuracy, part.count) for part in bins]
            drawn.append(reliability_chart(f"Reliability {in_words(stage)}", points))
    head = ["stage", "calibration error", "mean confidence", "right"]
    lead = (
        "On the dashed line a prediction that says 80 % is right four times of five; below it the learner is "
        "too sure. The expected calibration error is the mean distance, over 15 bins of equal width."
    )
    both = tag("div", drawn, tag("div", table(head, rows, "Calibration by stage")), class_="grid2")
    return Section("Reliability", "Reliability", [tag("p", lead, class_="soft"), both])


def calibrated(scored: Scored, stage: str) -> tuple[list[Bin], float]:
    """Bins of confidence, and the expected calibration error in percent, at a stage."""
    sure, wrong = torch.cat(scored.sure[stage]), ~torch.cat(scored.right[stage])
    # tasks may differ in their number of ways: the class that was said against all others
    said = torch.stack((sure, torch.zeros_like(sure)), 1)
    return reliability(said, wrong.long()), calibration_error(said, wrong.long())


def confusion(scored: Scored) -> Section:
    """What was taken for what: by group, and the pairs of classes that are most often confused."""
    parts: list[Any] = []
    names = sorted({name for pair in scored.group_pairs for name in pair})
    if 2 <= len(names) <= MOST_GROUPS:
        asked = {
            name: sum(n for (true, _), n in scored.group_pairs.items() if true == name) for name in names
        }
        counts = [
            [scored.group_pairs[true, said] if true != said else scored.wrong_inside[true] for said in names]
            for true in names
        ]
        rates = [
            [count / max(asked[true], 1) for count in row] for true, row in zip(names, counts, strict=True)
        ]
        say = [
            [
                f"{true} taken for {'another of ' if i == j else ''}{said}: {counts[i][j]} of {asked[true]}"
                for j, said in enumerate(names)
            ]
            for i, true in enumerate(names)
        ]
        parts.append(
            field_chart(
                "By group: a row's queries taken wrongly for a column's class", names, names, rates, say
            )
        )
    pairs = sorted(scored.pairs.items(), key=lambda item: (-item[1], item[0]))[:MOST_PAIRS]
    if not pairs:
        return Section("Confusion", "Confusion", [note("No query was taken for another class.")])
    rows = [[true, said, f"{count} of {scored.met[true, said]}"] for (true, said), count in pairs]
    head = ["class", "taken for", "queries, of those where it could be"]
    parts += [tag("h3", "Most often confused"), table(head, rows, "Most often confused classes")]
    wrong, total = sum(scored.pairs.values()), sum(len(part) for part in scored.right[scored.stages[-1]])
    lead = f"{wrong} of {total} queries were taken for another class."
    return Section("Confusion", "Confusion", [tag("p", lead, class_="soft"), *parts])
