"""What comes from files is text, and charts are where their numbers are."""

import itertools
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metafilm.report.page import Section, page, table, tag, thumbnail
from metafilm.report.page.axes import Axis, across
from metafilm.report.page.charts import MOST_POINTS, Curve, field_chart, line_chart
from metafilm.report.page.html import breaking, joined

EVIL = """<script>alert("1")</script>&'"""


@given(st.text())
def test_text_comes_back_from_an_element_as_it_was(text):
    from html import unescape

    made = tag("p", text, title=text)
    assert made.startswith('<p title="') and made.endswith("</p>")
    inside = made.removesuffix("</p>").partition('">')
    assert "<" not in inside[2] and '"' not in inside[0].removeprefix('<p title="')
    assert unescape(inside[2]) == text


def test_markup_from_files_is_text_everywhere():
    shown = page(EVIL, [EVIL], [Section(EVIL, "one", [table([EVIL], [[EVIL, EVIL]], EVIL), breaking(EVIL)])])
    shown += line_chart(EVIL, [Curve(EVIL, [1, 2], [1, 2])], EVIL, EVIL)
    shown += field_chart(EVIL, [EVIL], [EVIL], [[1.0]])
    shown += thumbnail(torch.zeros(1, 4, 4), EVIL)
    assert "<script" not in shown and shown.count("&lt;script&gt;") >= 12
    assert "default-src 'none'" in shown.replace("&#x27;", "'")


def test_attributes_and_children():
    assert (
        tag("a", "x", href="#y", class_="z", hidden=True, title=None) == '<a href="#y" class="z" hidden>x</a>'
    )
    assert joined([tag("br"), None, ["<", tag("i", 1)]]) == "<br>&lt;<i>1</i>"


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low, span):
    axis = Axis(low, low + span, 0, 100)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    steps = {round((b - a) / span, 6) for a, b in itertools.pairwise(ticks)}
    assert len(steps) <= 1


def test_across():
    assert across([]) == (0.0, 1.0) and across([float("nan"), 1.0, 3.0]) == (1.0, 3.0)
    low, high = across([2.0])
    assert low < 2.0 < high


def test_a_long_curve_is_thinned_and_keeps_its_extremes():
    x = list(range(10_000))
    y = [float(i % 7) for i in x]
    y[5000] = 100.0
    thin = Curve("a", x, y).thinned()
    assert len(thin.x) <= MOST_POINTS and max(thin.high) == 100.0 and min(thin.low) == 0.0
    assert sum(thin.y) / len(thin.y) == pytest.approx(sum(y) / len(y), rel=0.02)


def test_a_point_lies_where_its_number_says():
    drawn = line_chart("t", [Curve("a", [0, 10], [0.0, 50.0])], "x", "y")
    (points,) = re.findall(r'points="([^"]+)"', drawn)
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in points.split())
    assert x0 < x1 and y0 > y1  # up is more


def test_thumbnails_are_the_pictures():
    import base64
    import io

    import numpy as np
    from PIL import Image

    image = torch.randint(0, 256, (1, 9, 9), dtype=torch.uint8)
    for value in (image, image.float() / 255):
        address = re.search(r'src="data:image/png;base64,([^"]+)"', thumbnail(value, "a"))
        opened = Image.open(io.BytesIO(base64.b64decode(address[1])))
        assert torch.equal(torch.from_numpy(np.array(opened)), image[0])
