"""The pages in a browser: nothing beside the window, all of it by keyboard, not a word in the console."""

import pytest
import torch

from episodes import EpisodeSampler
from metafilm.config.sources import Source
from metafilm.report import Asked, find, prediction_report, run_report, write
from metafilm.storage.run import RunDirectory


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def report(pages, make_learner, pool, tiny_config):
    """Of a run with many sites, long names and markup in them."""
    path = pages / "run.html"
    if not path.is_file():
        with RunDirectory.open(pages / "run", tiny_config()) as run:
            for i in range(400):
                sizes = {f"net.stage{k}.block.norm.film.delta_gamma": 0.01 * i * k for k in range(30)}
                run.append_metrics({"iteration": i, "loss": 1 / (1 + i), "accuracy": 50.0, "sizes": sizes})
        learner = make_learner(dtype=torch.float32, inner={"steps": 1}).eval()
        source = Source(EpisodeSampler(pool, 3, 2, 4, 1), (pool,))
        text = run_report(find(str(run.path)), Asked(learner, tiny_config(), source, "val", 8))
        write(
            path,
            text.replace("class1", "class1_&lt;script&gt;document.title=1&lt;/script&gt;_very_long_name" * 3),
        )
    return path


@pytest.fixture
def said(pages):
    """Of a few pictures, a name of which is markup without a place to break."""
    path = pages / "said.html"
    names = ["<script>document.title='broken'</script>", "b" * 120]
    row = {"probability": 0.7, "probabilities": dict(zip(names, (0.7, 0.3), strict=True))}
    rows = [
        {"file": f"{'f' * 90}{i}.png", "prediction": names[i % 2], "class": names[0], **row} for i in range(5)
    ]
    found = {
        "checkpoint": "x",
        "classes": names,
        "predictions": rows,
        "skipped": [{"file": "a", "reason": "b"}],
    }
    found |= {"accuracy": 60.0, "labelled": 5}
    images = torch.randint(0, 256, (5, 3, 96, 96), dtype=torch.uint8)
    write(path, prediction_report(found, [0, 1, 0, 1, 0], names[:1] * 3 + names[1:] * 2, images, images))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kind", ["report", "said"])
def test_wide_and_narrow_light_and_dark(request, chromium, wear, reached_by_keyboard, kind, width, scheme):
    path = request.getfixturevalue(kind)
    wear(width, scheme)
    chromium.get(path.as_uri())
    inside = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    assert chromium.execute_script(inside) == [width, width]
    assert reached_by_keyboard() == []
    assert chromium.get_log("browser") == [] and chromium.title not in ("1", "broken")
    paper = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    unnamed = (
        "return [...document.images].filter((one) => !one.alt || !one.complete || !one.naturalWidth).length"
    )
    assert chromium.execute_script(unnamed) == 0
    assert chromium.execute_script("return document.querySelectorAll('svg:not([aria-label])').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(chromium, wear, said, scheme):
    """The contrast of ink, of soft text and of links to their paper, after WCAG 2: 4.5 at least."""
    wear(1440, scheme)
    chromium.get(said.as_uri())
    names = ["ink", "soft", "accent", "good", "bad", "paper", "card", "field", "tint"]
    read = """const style = getComputedStyle(document.documentElement);
        return arguments[0].map((name) => style.getPropertyValue('--' + name))"""
    colours = dict(zip(names, map(str.strip, chromium.execute_script(read, names)), strict=True))

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text in ("ink", "soft", "accent", "good", "bad"):
        for ground in ("paper", "card") + (("field",) if text in ("ink", "soft") else ()):
            low, high = sorted((light(colours[text]), light(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
