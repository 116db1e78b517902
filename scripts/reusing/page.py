"""The drawing page in a headless Chromium, and what a person does on it; for tests and measurements."""

import math
import shutil
import time
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
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


def opened() -> Any | None:
    """A headless Chromium, to be ended by `quit`; None where there is none, or no driver of it."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


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

    def answered(self, turns: int) -> list[float]:
        """Milliseconds from the last stroke of a drawing until its answer is on the screen, of so many
        drawings of the classes taught."""
        self.browser.execute_script(WATCH)
        times = []
        for turn in range(turns):
            name = list(DRAWN)[turn % len(DRAWN)]
            self.draw(self.find("#ask-pad"), DRAWN[name], 0.04 * (turn % 2))
            self.wait(lambda name=name: self.said().startswith(name))
            time.sleep(0.1)  # whatever is still under way
            times.append(self.browser.execute_script("return window.answered - window.lifted"))
            self.find("#ask-tools button").click()
            self.wait(lambda: self.said() == "")
        return times

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
