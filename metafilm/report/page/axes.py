"""What all charts share: a frame with a title and axes whose ticks are round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from metafilm.report.page.html import Html, joined, tag

WIDTH, HEIGHT = 420, 240  # of a chart's own units; on the page it is as wide as its place
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 10, 38


@dataclass(frozen=True)
class Axis:
    """From values in [low, high] to places in [first, last]."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        place = self.first + (value - self.low) / span * (self.last - self.first)
        return round(place, 2)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values within the axis, at most about so many."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        rough = span / most
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def across(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    """The range of finite values, and a part of it more on either side; of none (0, 1)."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    if low == high:
        return low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    return low - margin * (high - low), high + margin * (high - low)


def horizontal(low: float, high: float, width: int = WIDTH) -> Axis:
    return Axis(low, high, LEFT, width - RIGHT)


def vertical(low: float, high: float, height: int = HEIGHT) -> Axis:
    return Axis(low, high, height - BOTTOM, TOP)


def short(value: float) -> str:
    """A number as a tick says it: 0.002, 1.5, 20k."""
    if value and abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}" if not 0 < abs(value) < 1e-3 else f"{value:.2g}"


def frame(x: Axis, y: Axis, x_label: str, y_label: str, x_ticks: Sequence[tuple[float, str]] = ()) -> Html:
    """Lines, ticks and labels of both axes."""
    parts = []
    for value in y.ticks():
        parts.append(tag("line", x1=x.first, x2=x.last, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", short(value), x=x.first - 6, y=y(value) + 4, text_anchor="end"))
    for value, text in x_ticks or [(value, short(value)) for value in x.ticks()]:
        parts.append(tag("text", text, x=x(value), y=y.first + 16, text_anchor="middle"))
    parts.append(tag("line", x1=x.first, x2=x.last, y1=y.first, y2=y.first, class_="axis"))
    middle = (x.first + x.last) / 2
    parts.append(tag("text", x_label, x=middle, y=y.first + 32, text_anchor="middle", class_="label"))
    half = (y.first + y.last) / 2
    turned = {"transform": f"rotate(-90 10 {half})", "text_anchor": "middle", "class_": "label"}
    parts.append(tag("text", y_label, x=10, y=half + 4, **turned))
    return joined(parts)


def svg(
    title: str, *parts: object, width: float = WIDTH, height: float = HEIGHT, fixed: bool = False
) -> Html:
    """A picture that says what it shows to who can't see it; ``fixed``: in its own size, not its place's."""
    size = {"width": width, "height": height} if fixed else {}
    label = {"role": "img", "aria_label": title}
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", class_="chart", **size, **label)
