"""The page in a browser: draw, ask, upload; by mouse and keyboard, wide and narrow, light and dark."""

import io
import statistics
import threading
import time

import numpy as np
import pytest
from PIL import Image

from metafilm import Task
from metafilm.app.session import Session

pytest.importorskip("selenium", reason="selenium is not installed (the extra `test`)")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from scripts.reusing.page import DRAWN, Page

# how light the strokes on a canvas are
INK = """const shown = arguments[0], canvas = new OffscreenCanvas(shown.width, shown.height);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(shown, 0, 0);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels[4 * pixels.filter((_, i) => i % 4 === 3).findIndex((alpha) => alpha === 255)]"""


@pytest.fixture
def page(chromium, wear, omniglot_server) -> Page:
    """Opened wide and light; nothing may have been said in the browser's console by the end."""
    wear(1440, "light")
    chromium.get(omniglot_server.url)
    page = Page(chromium)
    page.wait(lambda: chromium.execute_script("return document.body.dataset.ready"))
    yield page
    assert page.errors() == []


@pytest.mark.slow
def test_draw_teach_and_ask(page, tmp_path):
    """Two shots each of three characters by mouse, then queries; answers come soon after the last stroke."""
    page.teach()
    times = page.answered(12)
    print(f"last stroke to answer: median {statistics.median(times):.0f} ms of {len(times)}")
    assert 0 < statistics.median(times) <= 150, times
    assert "no gate" in page.text("#verdict")
    assert len(page.browser.find_elements(By.CSS_SELECTOR, "#sites canvas")) == 8


def test_before_and_after_stand_side_by_side_and_the_task_goes_away(page, chromium, tmp_path):
    page.teach(shots=1)
    page.draw(page.find("#ask-pad"), DRAWN["ring"])
    page.wait(lambda: page.said().startswith("ring"))
    words = page.text("#answer tbody").split()
    assert [word for word in words if word in DRAWN] == list(DRAWN) and words.count("%") == 6
    chromium.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.find("#take").click()
    file = tmp_path / "task.safetensors"
    page.wait(file.is_file)
    assert Task.load(file).classes == list(DRAWN)


def test_by_keyboard_alone(page):
    """Arrow keys and Space draw, Enter adds; no mouse."""
    for card, turns in zip(page.cards, (Keys.ARROW_RIGHT, Keys.ARROW_DOWN), strict=False):
        keys = ActionChains(page.browser, duration=0)
        page.browser.execute_script("arguments[0].focus()", card.find_element(By.TAG_NAME, "canvas"))
        keys.send_keys(Keys.SPACE, *[turns] * 8, Keys.SPACE, Keys.ENTER).perform()
        page.wait(lambda card=card: page.shots(card) == 1)
    page.browser.execute_script("document.getElementById('ask-pad').focus()")
    ask = ActionChains(page.browser, duration=0)
    ask.send_keys(Keys.SPACE, *[Keys.ARROW_DOWN] * 6, Keys.SPACE).perform()
    page.wait(lambda: page.said().startswith("class 2"))


@pytest.fixture
def files(tmp_path):
    """Twenty good pictures; a broken one, a text called .png, one of 30 million pixels."""
    good = []
    for i in range(20):
        grey = np.full((120, 120), 255, np.uint8)
        grey[20 + i : 26 + i, 20:100] = 0
        Image.fromarray(grey).save(tmp_path / f"good{i}.png")
        good.append(tmp_path / f"good{i}.png")
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (100, 100), np.uint8)
    Image.fromarray(noise).save(content, "png")
    (tmp_path / "broken.png").write_bytes(content.getvalue()[:300])
    (tmp_path / "text.png").write_text("this is no picture")
    huge = np.full((5000, 6000), 255, np.uint8)
    huge[1000:1300, 1000:5000] = 0
    Image.fromarray(huge).save(tmp_path / "huge.png", compress_level=1)
    return good, tmp_path


def test_uploads_good_bad_and_many(page, files):
    good, place = files
    first, second, third = page.cards
    page.upload(first, *good)  # twenty at once
    page.wait(lambda: page.shots(first) == 20)
    assert page.message() == ""
    page.upload(first, good[0])
    page.wait(lambda: "20 examples at most" in page.message())
    assert page.shots(first) == 20
    page.upload(second, place / "broken.png", place / "text.png", place / "huge.png")
    page.wait(lambda: page.shots(second) == 1)  # the large one, made smaller on its way
    page.wait(lambda: "text.png" in page.message())
    lines = page.message().splitlines()
    assert [line.split(":")[0] for line in lines] == ["broken.png", "text.png"]
    assert all("can't be read as a picture" in line for line in lines)
    page.upload(third, *good, good[0])  # one too many
    page.wait(lambda: "1 of 21 pictures were left out" in page.message())
    assert page.shots(third) == 20
    page.upload(page.find(".ask"), place / "text.png")
    page.wait(lambda: page.message().startswith("text.png: it can't be read"))
    page.upload(page.find(".ask"), place / "huge.png")
    page.wait(lambda: page.said() != "")
    assert page.message() == ""


@pytest.mark.parametrize("button", [".remove", "#start-over"])
def test_a_class_that_goes_while_its_pictures_come_takes_them_along(
    page, omniglot_server, files, monkeypatch, button
):
    asked, go, added = threading.Event(), threading.Event(), []
    add = Session.add

    def slow(self, key, picture):
        asked.set()
        go.wait(20)
        added.append(add(self, key, picture))
        return added[-1]

    monkeypatch.setattr(Session, "add", slow)
    page.upload(page.cards[0], *files[0][:5])
    page.wait(asked.is_set)
    page.find(button).click()
    go.set()
    *_, session = omniglot_server.desk.sessions._known.values()
    page.wait(lambda: added and not session.examples)
    time.sleep(0.3)  # of the four others none comes after it
    assert len(added) == 1 and not session.examples
    assert sum(page.shots(card) for card in page.cards) == 0
    names = [card.find_element(By.CSS_SELECTOR, ".name").get_attribute("value") for card in page.cards]
    assert names == (["class 2", "class 3"] if button == ".remove" else ["class 1", "class 2", "class 3"])


def test_a_page_that_was_forgotten_goes_on(page, omniglot_server):
    """Its examples are given again without a word."""
    page.teach(shots=1)
    omniglot_server.desk.sessions._known.clear()
    page.draw(page.find("#ask-pad"), DRAWN["zed"])
    page.wait(lambda: page.said().startswith("zed"))
    page.cards[0].find_element(By.CSS_SELECTOR, ".shots button").click()
    page.wait(lambda: page.text("#answer tbody").count("%") == 4)


def test_markup_in_a_name_is_text(page):
    page.teach(shots=1)
    name = page.cards[2].find_element(By.CSS_SELECTOR, ".name")
    name.clear()
    name.send_keys("<img src=x onerror=alert(1)>")
    page.draw(page.find("#ask-pad"), DRAWN["zed"])
    page.wait(lambda: page.said().startswith("<img src=x onerror=alert(1)>"))


def test_wide_and_narrow_light_and_dark(page, chromium, wear, reached_by_keyboard):
    """Nothing lies beside the window, and Tab comes to everything."""
    page.teach(shots=1)
    page.draw(page.find("#ask-pad"), DRAWN["cross"])
    page.wait(lambda: page.said().startswith("cross"))
    inside = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    for width in (390, 1440):
        for scheme in ("light", "dark"):
            wear(width, scheme)
            assert chromium.execute_script(inside) == [width, width]
            assert reached_by_keyboard() == []
            paper = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
            ink = chromium.execute_script(INK, page.find("#ask-pad"))
            assert (ink > 127) == (scheme == "dark")  # what was drawn is drawn again in the new colours
