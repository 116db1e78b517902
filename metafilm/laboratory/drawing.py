"""Figures as SVG files, drawn by matplotlib, which is imported when the first is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from metafilm.storage.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, BAR = "#263238", "#1e6fb8"


def write_svg(figure: Figure, path: Path) -> None:
    """The same bytes each time for the same figure."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "metafilm"}):
        atomic_write(
            path,
            lambda file: figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None}),
        )


def bars(values: Mapping[str, float], label: str) -> Figure:
    """A bar for each name, the longest on top."""
    from matplotlib.figure import Figure

    ordered = sorted(values.items(), key=lambda pair: pair[1])
    figure = Figure(figsize=(6.4, 0.6 + 0.36 * len(ordered)))
    axes = figure.subplots()
    axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=BAR, height=0.6)
    for place, (_, value) in enumerate(ordered):
        axes.text(value, place, f" {value:.2f}", va="center", fontsize=9, color=INK)
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure
