"""The page about a user's own pictures: what was said of each, how sure, and which example is nearest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metafilm.heads import CosineHead
from metafilm.learner.task import Task
from metafilm.report.page.document import Section, note, page, table, tiles
from metafilm.report.page.html import Html, breaking, tag
from metafilm.report.page.pictures import thumbnail

THUMB = 96  # pixels
UNKNOWN = "none of the classes"
LEAST = 0.001  # probability of another class that is worth a word


def nearest(task: Task, support: Tensor, queries: Tensor) -> list[int]:
    """For each query the row of the support picture whose features under the task are nearest to its own: by
    angle where the head goes by angle, else by distance.

    Args:
        support: ``[S, C, H, W]`` as in ``adapt``.
        queries: ``[Q, C, H, W]``.
    """
    first, second = task.embed(queries), task.embed(support)
    if isinstance(task.learner.head, CosineHead):
        first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    return torch.cdist(first, second).argmin(1).tolist()


def prediction_report(
    found: dict[str, Any],
    near: Sequence[int],
    labels: Sequence[str],
    examples: Tensor,
    pictures: Tensor,
) -> str:
    """The page.

    Args:
        found: the record of ``metafilm predict``: ``classes``, ``predictions``, ``skipped`` ...
        near: for each prediction the row of the nearest support picture.
        labels: of the support pictures.
        examples, pictures: thumbnails ``[n, 3, H, W]`` uint8 of support and query pictures.
    """
    rows = found["predictions"]
    order = sorted(range(len(rows)), key=lambda i: rows[i]["probability"])
    cards = [_card(rows[i], labels[near[i]], pictures[i], examples[near[i]]) for i in order]
    parts = [Section("What was said, the least sure first", "Pictures", [tag("ul", cards, class_="answers")])]
    if "labelled" in found:
        parts.append(Section("By class", "Classes", [_by_class(found)]))
    parts.append(Section("What it was shown", "Examples", [_examples(labels, examples)]))
    if found["skipped"]:
        lines = [[one["file"], one["reason"]] for one in found["skipped"]]
        parts.append(
            Section("Skipped", "Skipped", [table(["file", "why"], lines, "Files that can't be read")])
        )
    lead: list[Any] = [
        tag("p", f"{len(rows)} pictures named by {found['checkpoint']} from {len(labels)} examples.")
    ]
    lead.append(tiles(_figures(found)))
    if "labelled" not in found:
        lead.append(note("No picture lies in a folder with a class's name, so nothing says which are right."))
    return page("What was said of your pictures", lead, parts)


def _figures(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = found["predictions"]
    shown = [("Pictures", str(len(rows)), f"in {len(found['classes'])} classes")]
    if "labelled" in found:
        shown.append(("Right", f"{found['accuracy']:.1f} %", f"of {found['labelled']} in a class's folder"))
    mean = sum(row["probability"] for row in rows) / len(rows)
    shown.append(("How sure", f"{100 * mean:.0f} %", "on average"))
    if found.get("reject") is not None:
        unknown = sum(row["prediction"] is None for row in rows)
        return [*shown, ("None of the classes", str(unknown), f"{100 * found['reject']:g} % false alarms")]
    unsure = sum(row["probability"] < 0.5 for row in rows)
    return [*shown, ("Less than half sure", str(unsure), "pictures")]


def _card(row: dict[str, Any], label: str, picture: Tensor, example: Tensor) -> Html:
    known, sure = row["prediction"] is not None, 100 * row["probability"]
    said = row["prediction"] if known else UNKNOWN
    order = sorted(row["probabilities"].items(), key=lambda item: -item[1])
    others = order[1:3] if known else order[:2]
    then = ", ".join(f"{name} {100 * value:.1f} %" for name, value in others if value >= LEAST)
    verdict = None
    if row["class"] is not None:
        right = row["class"] == row["prediction"]
        words = "right" if right else f"wrong: it lies in {row['class']}"
        verdict = tag("div", words, class_="good" if right else "bad")
    meter = tag("span", tag("span", style=f"width:{sure:.1f}%"), class_="meter", aria_hidden="true")
    near = [thumbnail(example, f"nearest example, of {label}"), tag("span", f"nearest example: {label}")]
    text = [
        tag("div", tag("span", said, class_="said"), f" {sure:.1f} %" if known else None),
        meter if known else None,
        tag("div", f"{'then' if known else 'most like'} {then}", class_="soft") if then else None,
        verdict,
        tag("div", breaking(Path(row["file"]).name), title=row["file"], class_="soft"),
        tag("div", near, class_="soft near"),
    ]
    shown = thumbnail(picture, f"picture {row['file']}", "large")
    return tag("li", shown, tag("div", text, class_="text"))


def _by_class(found: dict[str, Any]) -> Html:
    known = [row for row in found["predictions"] if row["class"] is not None]
    lines = []
    for name in found["classes"]:
        mine = [row for row in known if row["class"] == name]
        right = sum(row["prediction"] == name for row in mine)
        said = sum(row["prediction"] == name for row in known)
        lines.append([str(name), f"{right} of {len(mine)}" if mine else "–", str(said)])
    return table(["class", "right", "said so often"], lines, "By class")


def _examples(labels: Sequence[str], examples: Tensor) -> Html:
    boxes = []
    for name in dict.fromkeys(labels):
        rows = [i for i, label in enumerate(labels) if label == name]
        images = [thumbnail(examples[i], f"example of {name}") for i in rows[:6]]
        more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
        boxes.append(tag("div", tag("span", images), tag("span", tag("b", name), more), class_="shown"))
    return tag("div", boxes, class_="row")
