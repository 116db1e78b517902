"""Docstrings as the site shows them: Sphinx's :func:`metafilm.film.insert` becomes a link, or plain code
where the site has no such entry. An extension of griffe, which mkdocstrings reads code with; named in
mkdocs.yml.
"""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`~?([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites the text of every docstring once it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = in_markdown(obj.docstring.value, obj)


def in_markdown(text: str, obj: griffe.Object) -> str:
    """Roles as optional cross-references, double backticks as single ones."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        owner = obj if isinstance(obj, griffe.Class) else obj.parent
        full = name if "." in name or owner is None else f"{owner.path}.{name}"
        return f'<autoref optional identifier="{full}"><code>{name}</code></autoref>'

    return re.sub(r"``([^`]+)``", r"`\1`", ROLE.sub(link, text))
