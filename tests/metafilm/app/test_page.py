"""The page in a browser: draw, ask, upload; by mouse and keyboard, wide and narrow, light and dark."""

import io
import math
import statistics
import time

import numpy as np
import pytest
from PIL import Image

from metafilm import Task

pytest.importorskip("selenium", reason="selenium is not installed (the extra `test`)")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CIRCLE = [(0.5 + 0.33 * math.sin(t * math.pi / 8), 0.5 - 0.33 * math.cos(t * math.pi / 8)) for t in range(17)]
DRAWN = {
    "cross": [[(0.5, 0.15), (0.5, 0.85)], [(0.15, 0.5), (0.85, 0.5)]],
    "ring": [CIRCLE],
    "zed": [[(0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)]],
}
WATCH = """
    const answer = document.getElementById("answer"), pad = document.getElementById("ask-pad");
    window.lifted = window.answered = null;
    addEventListener("pointerup", () => { window.lifted = performance.now(); }, true);
    new MutationObserver(() => requestAnimationFrame(() => { window.answered = performance.now(); }))
        .observe(answer, { childList: true });
"""
# how light the strokes on a canvas are
INK = """const shown = arguments[0], canvas = new OffscreenCanvas(shown.width, shown.height);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(shown, 0, 0);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels[4 * pixels.filter((_, i) => i % 4 === 3).findIndex((alpha) => alpha === 255)]"""


class Page:
    """What a person does on it."""

    def __init__(self, browser) -> None:
        self.browser = browser

    def wait(self, condition, seconds: float = 10.0):
        return WebDriverWait(self.browser, seconds, 0.02).until(lambda _: condition())

    def find(self, selector: str):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    @property
    def cards(self):
        return self.browser.find_elements(By.CSS_SELECTOR, ".class")

    def shots(self, card) -> int:
        return len(card.find_elements(By.CSS_SELECTOR, ".shots img"))

    def draw(self, canvas, strokes, aside: float = 0.0) -> None:
        """With the mouse; ``aside``: moved, of the canvas."""
        self.browser.execute_script(
            "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas
        )
        width, height = canvas.size["width"], canvas.size["height"]
        mouse = ActionChains(self.browser, duration=5)

        def to(point):
            right, down = ((value - 0.5 + aside) for value in point)
            return mouse.move_to_element_with_offset(canvas, round(right * width), round(down * height))

        for first, *rest in strokes:
            to(first).click_and_hold()
            for point in rest:
                to(point)
            mouse.release()
        mouse.perform()

    def teach(self, shots: int = 2) -> None:
        """Names the first three classes and draws so many examples of each."""
        for card, (name, strokes) in zip(self.cards, DRAWN.items(), strict=False):
            field = card.find_element(By.CSS_SELECTOR, ".name")
            field.clear()
            field.send_keys(name)
            for shot in range(shots):
                self.draw(card.find_element(By.TAG_NAME, "canvas"), strokes, 0.05 * shot)
                card.find_element(By.CSS_SELECTOR, ".primary").click()
                self.wait(lambda card=card, shot=shot: self.shots(card) == shot + 1)
        self.wait(lambda: "Ready" in self.text("#answer"))

    def text(self, selector: str) -> str:
        """What stands there now; nothing where there is no such place. In one go: answers come and go."""
        read = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return self.browser.execute_script(read, selector)

    def said(self) -> str:
        return self.text("#answer .said")

    def message(self) -> str:
        return self.text("#message").removeprefix("Close").strip()

    def upload(self, where, *files) -> None:
        where.find_element(By.CSS_SELECTOR, "input[type=file]:not([capture])").send_keys(
            "\n".join(map(str, files))
        )

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


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
    page.browser.execute_script(WATCH)
    times = []
    for turn in range(12):
        name = list(DRAWN)[turn % 3]
        page.draw(page.find("#ask-pad"), DRAWN[name], 0.04 * (turn % 2))
        page.wait(lambda name=name: page.said().startswith(name))
        time.sleep(0.1)  # whatever is still under way
        times.append(page.browser.execute_script("return window.answered - window.lifted"))
        page.find("#ask-tools button").click()
        page.wait(lambda: page.said() == "")
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
