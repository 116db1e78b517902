"""A drawing's strokes as a picture like Omniglot's: its pen, its size, its place.

Omniglot's characters were drawn online on a canvas of 105 x 105 pixels; the figures below are means over
1,500 of its background pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metafilm.app.limits import MOST_POINTS, Refused

SIDE = 105  # of Omniglot's canvas
PEN = 5.0  # the width of its pen
LONGER = 67.0  # a character's longer side, pen included
CENTRE = (51.2, 50.6)  # of its bounding box, right and down
SMALLEST = 0.12  # of the page's canvas: what is smaller is drawn as if it were so large, so a dot stays a dot
FINE = 4  # lines are drawn so many times larger, and then averaged

Stroke = list[tuple[float, float]]


def read_strokes(value: Any) -> list[Stroke]:
    """Strokes as the page sends them, checked: lists of points [x, y], 0 to 1 across the canvas.

    Raises:
        Refused: something else, or too many points.
    """
    if not isinstance(value, list) or not value:
        raise Refused("a drawing is a list of strokes, and this one has none: draw something first")
    if not all(isinstance(stroke, list) and stroke for stroke in value):
        raise Refused("a stroke is a list of points [x, y], and this one has none")
    if (count := sum(map(len, value))) > MOST_POINTS:
        raise Refused(f"the drawing has {count} points, {MOST_POINTS} at most: clear it and draw less", 413)
    return [[_point(point) for point in stroke] for stroke in value]


def _point(value: Any) -> tuple[float, float]:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(one) in (int, float) for one in value)
    if not numbers or not all(-1 <= one <= 2 for one in value):  # neither is NaN
        raise Refused(f"a point is [x, y] with both from 0 to 1 across the canvas, this is {str(value)[:40]}")
    return float(value[0]), float(value[1])


def placed(strokes: Sequence[Stroke]) -> list[np.ndarray]:
    """The strokes on Omniglot's canvas, in its pixels: as large and where a character of its is."""
    points = np.array([point for stroke in strokes for point in stroke])
    low, high = points.min(0), points.max(0)
    scale = (LONGER - PEN) / max(float((high - low).max()), SMALLEST)
    return [(np.array(stroke) - (low + high) / 2) * scale + CENTRE for stroke in strokes]


def ink(strokes: Sequence[Stroke], size: int) -> np.ndarray:
    """The drawing as uint8 ``[size, size]``, ink 255 on 0, made as `read_drawing` makes Omniglot's: black or
    white at 105 pixels, then shrunk by a filter that averages."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (SIDE * FINE, SIDE * FINE))
    draw = ImageDraw.Draw(canvas)
    radius = PEN * FINE / 2
    for stroke in placed(strokes):
        points = [(float(x), float(y)) for x, y in stroke * FINE]
        if len(points) > 1:
            draw.line(points, fill=255, width=round(PEN * FINE), joint="curve")
        for x, y in (points[0], points[-1]):  # round ends
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    small = canvas.resize((SIDE, SIDE), Image.Resampling.BOX).point([0] * 128 + [255] * 128)
    return np.array(small.resize((size, size), Image.Resampling.LANCZOS), np.uint8)
