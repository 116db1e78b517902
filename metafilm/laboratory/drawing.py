"""Figures as SVG files, drawn by matplotlib, which is imported when the first is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metafilm.storage.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, BAR = "#263238", "#1e6fb8"


def write_svg(figure: Figure, path: Path) -> None:
    """The same bytes each time for the same figure."""
    import matplotlib

    # text as text, to be found, selected and read aloud, and at half the size
    with matplotlib.rc_context(
        {"svg.hashsalt": "metafilm", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
    ):
        atomic_write(
            path,
            lambda file: figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None}),
        )


def bars(values: Mapping[str, float], label: str, marks: Mapping[str, float] | None = None) -> Figure:
    """A bar for each name, the longest on top; ``marks``: a value to hold each against, a line across it."""
    from matplotlib.figure import Figure

    ordered = sorted(values.items(), key=lambda pair: pair[1])
    figure = Figure(figsize=(6.4, 0.6 + 0.36 * len(ordered)))
    axes = figure.subplots()
    axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=BAR, height=0.6)
    for place, (_, value) in enumerate(ordered):
        axes.text(value, place, f" {value:.2f}", va="center", fontsize=9, color=INK)
        mark = (marks or {}).get(ordered[place][0])
        if mark is not None:
            axes.vlines(mark, place - 0.42, place + 0.42, color=INK, linewidth=1.5)
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def forest(
    groups: Mapping[str, Mapping[str, Mapping[Any, Mapping[str, tuple[float, float]]]]],
    colours: Mapping[Any, str],
    panels: Mapping[str, str],
    bands: Mapping[str, Mapping[Any, float]],
) -> Figure:
    """Points with intervals, one line under the other, in panels side by side.

    Args:
        groups: title -> label of a line -> colour's key -> panel -> a value and half the width of its
            interval; a line without any says that it failed.
        colours: their keys, from light to dark, with their names.
        panels: by name, with what its axis is called.
        bands: half the width of a band round 0, by panel and colour.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    lines = [(title, label) for title, rows in groups.items() for label in ("", *rows)]
    drawn = Figure(figsize=(9.5, 0.9 + 0.2 * len(lines)), layout="constrained")
    axes = dict(zip(panels, drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0], strict=True))
    shades = [colormaps["viridis_r"](0.25 + 0.7 * i / max(len(colours) - 1, 1)) for i in range(len(colours))]
    shade = dict(zip(colours, shades, strict=True))
    for place, (title, label) in enumerate(lines):
        found = groups[title].get(label, {})
        if label and not found:
            next(iter(axes.values())).text(0, place, "failed", va="center", fontsize=7, color=INK)
        for number, key in enumerate(key for key in colours if key in found):
            beside = place + 0.5 * ((number + 0.5) / len(found) - 0.5)
            for name, panel in axes.items():
                value, half = found[key][name]
                panel.errorbar(
                    value, beside, xerr=half, marker="o", markersize=3, linewidth=1, color=shade[key]
                )
    for name, panel in axes.items():
        panel.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        for key, half in bands.get(name, {}).items():
            panel.axvspan(-half, half, color=shade[key], alpha=0.12, linewidth=0, zorder=-1)
        panel.set_xlabel(panels[name], fontsize=9)
        panel.tick_params(labelsize=8)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", color="0.92", zorder=-2)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
        panel.set_ylim(len(lines) - 0.5, -0.5)
    first = next(iter(axes.values()))
    first.set_yticks(range(len(lines)), [label or title for title, label in lines])
    for (_, label), tick in zip(lines, first.get_yticklabels(), strict=True):
        tick.set_fontweight("normal" if label else "bold")
    handles = [
        first.plot([], [], marker="o", markersize=4, linewidth=1, color=shade[key])[0] for key in colours
    ]
    drawn.legend(
        handles, list(colours.values()), loc="outside upper right", ncols=len(colours), frameon=False
    )
    return drawn
