"""One HTML page that needs nothing else: style inside, no script, no font, no address of anybody's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metafilm.report.page.html import Html, joined, raw, tag
from metafilm.storage.atomic import atomic_write

HERE = Path(__file__).parent
# Nothing is fetched, whatever got into the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Section:
    """One part of a page: its title, the word that the contents list it under, and what stands in it."""

    title: str
    short: str
    content: Sequence[Any]

    @property
    def anchor(self) -> str:
        return self.short.lower().replace(" ", "-")


def style() -> str:
    """The colours and shapes that all our pages share."""
    return (HERE / "style.css").read_text(encoding="utf-8")


def page(title: str, lead: Sequence[Any], sections: Sequence[Section]) -> str:
    """The whole document.

    Args:
        title: of the window and of the page.
        lead: what stands below the title.
        sections: listed in the contents by their short titles.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("style", raw(style())),
    )
    links = [tag("li", tag("a", section.short, href=f"#{section.anchor}")) for section in sections]
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#main", class_="skip"),
        tag("header", tag("p", "metafilm", class_="mark"), tag("h1", title), lead, class_="top"),
        tag("nav", tag("ul", links), aria_label="Contents"),
        tag("main", [_section(section) for section in sections], id="main"),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _section(section: Section) -> Html:
    title = tag("h2", section.title, id=f"{section.anchor}-title")
    return tag(
        "section", title, section.content, id=section.anchor, aria_labelledby=f"{section.anchor}-title"
    )


def write(path: str | Path, text: str) -> None:
    """Write the page, whole or not at all; names that are no text are shown with backslashes."""
    atomic_write(path, text.encode("utf-8", errors="backslashreplace"))


def note(*content: Any) -> Html:
    """Something that is not there, and why."""
    return tag("p", *content, class_="note")


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]], label: str) -> Html:
    """Rows under a head; the first cell of a row is its name."""
    top = tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in head]))
    lines = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    whole = tag("table", tag("caption", label, class_="unseen"), top, tag("tbody", lines))
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=label)


def facts(pairs: Sequence[tuple[str, Any]]) -> Html:
    """Names and what they are."""
    return tag("dl", [joined([tag("dt", name), tag("dd", value)]) for name, value in pairs], class_="facts")


def tiles(pairs: Sequence[tuple[str, str, str]]) -> Html:
    """The few figures that count: (name, figure, what it is of)."""
    boxes = [
        tag(
            "div", tag("p", name, class_="name"), tag("p", figure, class_="figure"), tag("p", of, class_="of")
        )
        for name, figure, of in pairs
    ]
    return tag("div", boxes, class_="tiles")
