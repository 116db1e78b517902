"""The episodes that went worst, with their pictures: the support, and what was said of which query."""

from __future__ import annotations

from typing import Any

from episodes import Episode
from episodes.episode import shape_in_words
from metafilm.report.naming import Names
from metafilm.report.page.axes import across, frame, horizontal, svg, vertical
from metafilm.report.page.charts import figure
from metafilm.report.page.document import Section
from metafilm.report.page.html import Html, breaking, joined, tag
from metafilm.report.page.pictures import thumbnail
from metafilm.report.scored import Scored, Seen

MOST_WRONG = 12  # queries of an episode
MOST_SHOTS = 5  # of a class


def worst(scored: Scored, names: Names) -> Section:
    """Each of the worst tasks."""
    title = "Where it went worst"
    if scored.regression:
        lead = "The tasks with the largest error: the line of dots is what was predicted."
        return Section(
            title,
            "Worst",
            [
                tag("p", lead, class_="soft"),
                tag("div", [_function(seen) for seen in scored.worst], class_="grid2"),
            ],
        )
    lead = "The episodes with the fewest right answers: what it was shown, then the queries it got wrong."
    return Section(
        title, "Worst", [tag("p", lead, class_="soft"), [_episode(seen, names) for seen in scored.worst]]
    )


def _episode(seen: Seen, names: Names) -> Html:
    task, called = seen.episode, names.of(seen.episode)
    shape = shape_in_words(task.ways, task.shots)
    kind = names.kind(task)
    title = f"Episode {int(task.index[0])}: {seen.score:.0f} % right"
    labels = task.support_labels[0].tolist()
    shown: list[Any] = []
    for label, name in enumerate(called):
        rows = [i for i, other in enumerate(labels) if other == label][:MOST_SHOTS]
        images = [thumbnail(task.support_images[0, i], f"support picture of {name}") for i in rows]
        shown.append(tag("div", tag("span", images), tag("span", breaking(name)), class_="shown"))
    probabilities = seen.logits.softmax(-1)
    wrong = []
    for i, true in enumerate(task.query_labels[0].tolist()):
        said = int(probabilities[i].argmax())
        if said != true:
            wrong.append((float(probabilities[i, said]), i, true, said))
    wrong.sort(reverse=True)
    queries = [_query(task, called, *one) for one in wrong[:MOST_WRONG]]
    more = tag("p", f"and {len(wrong) - MOST_WRONG} more", class_="soft") if len(wrong) > MOST_WRONG else None
    parts = [
        tag("h3", title),
        tag("p", f"{shape}{f', {kind}' if kind else ''}; the support:", class_="soft"),
        tag("div", shown, class_="row"),
        tag("p", "wrong queries, the surest first:" if queries else "no query was wrong", class_="soft"),
        tag("div", queries, class_="row"),
        more,
    ]
    return tag("div", parts, class_="worst")


def _query(task: Episode, called: list[str], sure: float, row: int, true: int, said: int) -> Html:
    picture = thumbnail(task.query_images[0, row], f"query picture of {called[true]}")
    words = joined(
        [tag("b", breaking(called[said])), f" {100 * sure:.0f} %", tag("br"), "is ", breaking(called[true])]
    )
    return tag("div", picture, tag("span", words), class_="shown")


def _function(seen: Seen) -> Html:
    """Support points, the queries' values and what was predicted, over x."""
    task = seen.episode
    known = list(
        zip(task.support_images[0, :, 0].tolist(), task.support_labels[0, :, 0].tolist(), strict=True)
    )
    x_values, true = task.query_images[0, :, 0].tolist(), task.query_labels[0, :, 0].tolist()
    said = seen.logits[:, 0].tolist()
    x = horizontal(*across([*x_values, *(point[0] for point in known)], 0.03))
    y = vertical(*across([*true, *said, *(point[1] for point in known)], 0.05))
    title = f"Task {int(task.index[0])}: mean squared error {seen.score:.3g}"
    parts = [frame(x, y, "x", "y")]
    for values, colour, size in ((true, "rest", 2.5), (said, "c0", 2.5)):
        dots = zip(x_values, values, strict=True)
        parts += [tag("circle", cx=x(a), cy=y(b), r=size, class_=f"dot {colour}") for a, b in dots]
    parts += [tag("circle", cx=x(a), cy=y(b), r=5, class_="dot c1") for a, b in known]
    return figure(title, svg(title, parts), ["predicted", "support points"])
