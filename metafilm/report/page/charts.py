"""Curves, intervals, points and fields of numbers as inline SVG, in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from metafilm.report.page.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    across,
    frame,
    horizontal,
    short,
    svg,
    vertical,
)
from metafilm.report.page.html import Html, tag

COLOURS = 8  # of the style sheet: classes c0 ... c7, and `rest`
NAMED = 40  # columns of a field that are few enough to be named
MOST_POINTS = 240  # of a curve: more can't be told apart


@dataclass
class Curve:
    """One line: ``y`` over ``x``, with a band from ``low`` to ``high`` where it has one."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default_factory=list)
    high: Sequence[float] = field(default_factory=list)

    def thinned(self) -> Curve:
        """Means of neighbours, with the band that they span, where there are more points than can be seen."""
        if len(self.x) <= MOST_POINTS:
            return self
        size = math.ceil(len(self.x) / MOST_POINTS)
        parts = [slice(start, start + size) for start in range(0, len(self.x), size)]
        low, high = self.low or self.y, self.high or self.y
        return Curve(
            self.name,
            [mean(self.x[part]) for part in parts],
            [mean(self.y[part]) for part in parts],
            [min(low[part]) for part in parts],
            [max(high[part]) for part in parts],
        )


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def line_chart(title: str, curves: Sequence[Curve], x_label: str, y_label: str) -> Html:
    """Curves over one axis, each with its name in a legend."""
    curves = [curve.thinned() for curve in curves if curve.x]
    x = horizontal(*across([value for curve in curves for value in curve.x]))
    # what the curves do is in the middle of the bands; one early spike must not flatten the rest
    y = vertical(*across([value for curve in curves for value in (*curve.y, *_inner(curve))], 0.05))
    parts = [frame(x, y, x_label, y_label)]
    for number, curve in enumerate(curves):
        colour = f"c{number % COLOURS}"
        if curve.low:
            there = [*zip(curve.x, curve.high, strict=True)]
            back = [*zip(curve.x, curve.low, strict=True)][::-1]
            band = " ".join(f"{x(a)},{_inside(y(b))}" for a, b in there + back)
            parts.append(tag("path", d=f"M {band} Z", class_=f"band {colour}"))
        points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(curve.x, curve.y, strict=True))
        parts.append(tag("polyline", points=points, class_=f"line {colour}"))
        last = f"{curve.name}: {short(curve.y[-1])} at {short(curve.x[-1])}"
        parts.append(tag("circle", cx=x(curve.x[-1]), cy=y(curve.y[-1]), r=3, class_=f"dot {colour}"))
        parts[-1] = tag("g", tag("title", last), parts[-1])
    return figure(title, svg(title, parts), [curve.name for curve in curves] if len(curves) > 1 else [])


def _inner(curve: Curve) -> list[float]:
    """The band's ends without its wildest twentieth."""
    low, high = sorted(curve.low), sorted(curve.high)
    return [low[len(low) // 20], high[len(high) - 1 - len(high) // 20]] if low else []


def _inside(place: float) -> float:
    return min(max(place, TOP), HEIGHT - BOTTOM)


def interval_chart(
    title: str, rows: Sequence[tuple[str, float, float]], x_label: str, plain: bool = False
) -> Html:
    """A dot and its interval for each (name, value, half width), below each other; the last stands out, but
    not where all are alike (``plain``)."""
    step, left = 34, 150
    height = TOP + step * len(rows) + BOTTOM
    ends = [end for _, value, half in rows for end in (value - _known(half), value + _known(half))]
    x = horizontal(*across(ends, 0.12))
    x = type(x)(x.low, x.high, left, WIDTH - 16)
    bottom = height - BOTTOM
    parts = []
    for value in x.ticks(4):
        parts.append(tag("line", x1=x(value), x2=x(value), y1=TOP, y2=bottom, class_="grid"))
        parts.append(tag("text", short(value), x=x(value), y=bottom + 16, text_anchor="middle"))
    parts.append(
        tag("text", x_label, x=(left + WIDTH) / 2, y=bottom + 32, text_anchor="middle", class_="label")
    )
    for number, (name, value, half) in enumerate(rows):
        y = TOP + step * (number + 0.5)
        colour = "c0" if plain or number == len(rows) - 1 else "rest"
        parts.append(tag("text", name, x=left - 12, y=y + 4, text_anchor="end", class_="name"))
        ends = {"x1": x(value - _known(half)), "x2": x(value + _known(half))}
        parts.append(
            tag(
                "g",
                tag("title", f"{name}: {value:.4g} ± {half:.2g}"),
                tag("line", **ends, y1=y, y2=y, class_=f"whisker {colour}"),
                tag("circle", cx=x(value), cy=y, r=5, class_=f"dot {colour}"),
            )
        )
    return figure(title, svg(title, parts, height=height))


def _known(half: float) -> float:
    return half if math.isfinite(half) else 0.0


def bar_chart(
    title: str,
    groups: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    x_label: str,
    y_label: str,
) -> Html:
    """For each group a bar per series, side by side; as wide as the groups need."""
    step = max(8 * len(series) + 8, min(70, 340 / max(len(groups), 1)))
    width = LEFT + step * len(groups) + 20
    x = horizontal(0, len(groups), round(max(width, WIDTH)))
    y = vertical(0, across([0.0, *(value for _, values in series for value in values)])[1] * 1.05)
    every = max(1, math.ceil(len(groups) / 20))
    ticks = [(i + 0.5, str(i + 1)) for i in range(0, len(groups), every)]
    parts = [frame(x, y, x_label, y_label, ticks)]
    unit = (x(1) - x(0)) / (len(series) + 0.6)
    for position, group in enumerate(groups):
        for number, (name, values) in enumerate(series):
            left, top = x(position) + (number + 0.3) * unit, y(values[position])
            box = {"x": round(left, 2), "y": top, "width": round(max(unit - 2, 2), 2), "rx": 2}
            bar = tag("rect", **box, height=round(y.first - top, 2), class_=f"bar c{number}")
            parts.append(tag("g", tag("title", f"{group}, {name}: {values[position]:.3g}"), bar))
    wide = x.last + 12
    drawn = svg(title, parts, width=wide, fixed=wide > 2 * WIDTH)
    return figure(title, scrolled(drawn, title) if wide > 2 * WIDTH else drawn, [name for name, _ in series])


def scatter(
    title: str,
    points: Sequence[tuple[float, float, int | None, str]],
    names: Sequence[str],
    labels: tuple[str, str],
) -> Html:
    """Points (x, y, colour or None for the rest, what to say of it), and the colours' names."""
    x = horizontal(*across([point[0] for point in points], 0.06))
    y = vertical(*across([point[1] for point in points], 0.06), height=HEIGHT + 60)
    parts = [frame(x, y, *labels)]
    for across_, up, colour, said in points:
        kind = "rest" if colour is None else f"c{colour % COLOURS}"
        dot = tag("circle", cx=x(across_), cy=y(up), r=4.5, class_=f"dot soft {kind}")
        parts.append(tag("g", tag("title", said), dot))
    rest = any(point[2] is None for point in points)
    return figure(
        title, svg(title, parts, height=HEIGHT + 60), [*names, *(["others"] if rest and names else [])]
    )


def reliability_chart(title: str, bins: Sequence[tuple[float, float, int]]) -> Html:
    """How often predictions were right, by how sure they were: (mean confidence, part right, how many)."""
    x, y = horizontal(0, 100), vertical(0, 100)
    parts = [frame(x, y, "how sure it was, %", "right, %")]
    parts.append(tag("line", x1=x(0), y1=y(0), x2=x(100), y2=y(100), class_="ideal"))
    most = max((count for *_, count in bins), default=1)
    for sure, right, count in bins:
        size = 3 + 6 * math.sqrt(count / most)
        said = f"{count} predictions that were {100 * sure:.1f} % sure: {100 * right:.1f} % right"
        dot = tag("circle", cx=x(100 * sure), cy=y(100 * right), r=round(size, 2), class_="dot c0")
        parts.append(tag("g", tag("title", said), dot))
    line = " ".join(f"{x(100 * sure)},{y(100 * right)}" for sure, right, _ in bins)
    parts.append(tag("polyline", points=line, class_="line c0"))
    return figure(title, svg(title, parts))


def field_chart(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    say: Sequence[Sequence[str]] | None = None,
) -> Html:
    """A field of numbers from 0 up as shades, with the names of rows and, where they are few, of columns
    beside it; scrolls where it is wide."""
    named = len(columns) <= NAMED
    wide = (30 if len(columns) <= 12 else 18) if named else 6
    high = wide if named else 14
    left = min(200, 14 + 6.6 * max(map(len, rows)))
    top = 16 + min(130, 5.8 * max(map(len, columns))) if named else 12
    most = max((value for row in values for value in row), default=0.0) or 1.0
    parts = []
    for r, name in enumerate(rows):
        y = round(top + high * r, 2)
        parts.append(tag("text", _cut(name, 30), x=left - 7, y=y + high / 2 + 4, text_anchor="end"))
        for c, value in enumerate(values[r]):
            said = say[r][c] if say else f"{name}, {columns[c]}: {value:.3g}"
            place = {"x": round(left + wide * c, 2), "y": y, "width": wide - named, "height": high - 1}
            shade = round(0.05 + 0.95 * max(value, 0.0) / most, 3)
            cell = tag("rect", **place, class_="cell", fill_opacity=shade, rx=2 * named)
            parts.append(tag("g", tag("title", said), cell))
    if named:
        for c, name in enumerate(columns):
            at = f"translate({left + wide * (c + 0.5) + 3} {top - 7}) rotate(-60)"
            parts.append(tag("text", _cut(name, 24), transform=at))
    width = left + wide * len(columns) + (80 if named else 12)
    drawn = svg(title, parts, width=round(width), height=round(top + high * len(rows) + 8), fixed=True)
    return figure(title, scrolled(drawn, title))


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def scrolled(content: Html, label: str) -> Html:
    """What may be wider than the page scrolls by itself, by keyboard too."""
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def figure(title: str, content: Html, names: Sequence[str] = ()) -> Html:
    """A chart under its title, with the names of its colours."""
    keys = [
        tag("li", tag("span", class_=f"key {'rest' if name == 'others' else f'c{i % COLOURS}'}"), name)
        for i, name in enumerate(names)
    ]
    legend = tag("ul", keys, class_="legend") if keys else None
    return tag("figure", tag("figcaption", title), content, legend)
