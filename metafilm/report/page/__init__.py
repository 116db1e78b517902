"""How our pages are made: elements, charts, pictures, and the document around them."""

from metafilm.report.page.document import Section, facts, note, page, style, table, tiles, write
from metafilm.report.page.html import Html, joined, tag
from metafilm.report.page.pictures import data_address, thumbnail

__all__ = [
    "Html",
    "Section",
    "data_address",
    "facts",
    "joined",
    "note",
    "page",
    "style",
    "table",
    "tag",
    "thumbnail",
    "tiles",
    "write",
]
