"""HTML and SVG, element by element: whatever is not made here is text, and escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = {"br", "circle", "col", "hr", "img", "line", "link", "meta", "path", "polyline", "rect", "wbr"}
SELF_CLOSED = {"circle", "line", "path", "polyline", "rect"}  # of SVG


class Html(str):
    """Markup made by :func:`tag`; any other string is text."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """One element.

    Args:
        name: of the element.
        children: Html goes in as it is, None is left out, lists are spread, everything else is escaped text.
        attributes: ``class_`` for ``class``, ``aria_label`` for ``aria-label``; None and False are left out,
            True stands alone.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    if name in VOID:
        return Html(f"<{' '.join(words)}{' /' if name in SELF_CLOSED else ''}>")
    return Html(f"<{' '.join(words)}>{joined(children)}</{name}>")


def joined(parts: Iterable[Any]) -> Html:
    """Parts as the children of :func:`tag`, one after the other."""
    found = []
    for part in parts:
        if isinstance(part, Html):
            found.append(part)
        elif isinstance(part, list | tuple):
            found.append(joined(part))
        elif part is not None:
            found.append(html.escape(str(part)))
    return Html("".join(found))


def breaking(name: str) -> Html:
    """A long name as text that may go on in the next line behind a slash or an underscore."""
    escaped = html.escape(str(name))
    return Html(escaped.replace("/", "/<wbr>").replace("_", "_<wbr>"))


def raw(text: str) -> Html:
    """Text that is markup already: of a file of ours, never of a user's."""
    return Html(text)
