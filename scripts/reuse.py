"""What a person waits for, and what taking the network away costs: results/reuse.json, quoted in
docs/your-own-pictures.md.

    python scripts/reuse.py                      # all of it, two minutes
    python scripts/reuse.py fit onnx --threads 2
    python scripts/reuse.py page                 # needs Chromium, its driver and selenium

fit: `FewShotClassifier.fit` on 5 classes of 5 pictures, once before the clock starts. page: on the drawing
page, from the last stroke to the answer on the screen. onnx: the largest difference of logits between a
task's ONNX file in ONNX Runtime and PyTorch, on its examples and on random pictures. Pictures are drawn
strokes, which need no data set.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

import episodes  # noqa: E402
from metafilm import FewShotClassifier  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from scripts.records import commit, hardware, put  # noqa: E402

OUT = ROOT / "results" / "reuse.json"
PAGE = ROOT / "docs" / "your-own-pictures.md"
BEGIN, END = "<!-- results/reuse.json -->", "<!-- end of reuse -->"
WAYS, SHOTS, SEED = 5, 5, 0
LEARNERS = (("omniglot-conv4", None), ("lite0", 64), ("lite0", 96))
"""Name, and the pictures' side where the network has none of its own."""


def examples(side: int) -> tuple[torch.Tensor, list[int]]:
    """25 pictures, uint8 ``[25, 1, side, side]``, and their classes."""
    pool = episodes.load("strokes", "test", image_size=side)
    task = episodes.EpisodeSampler(pool, WAYS, SHOTS, 1, SEED)[0]
    return task.support_images[0], task.support_labels[0].tolist()


def fit(repeats: int) -> Iterator[dict[str, Any]]:
    """Seconds of `fit`."""
    for name, side in LEARNERS:
        pictures, labels = examples(side or 28)
        seconds = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            FewShotClassifier(name, image_size=side).fit(pictures, labels)
            seconds.append(time.perf_counter() - begin)
        row = {"figure": "fit", "learner": name, "image_size": side or 28, "unit": "s"}
        yield {**row, "first": seconds[0], **middle(seconds[1:])}


def page(repeats: int) -> Iterator[dict[str, Any]]:
    """Milliseconds to an answer on the page."""
    from metafilm import MetaFiLM
    from scripts.reusing.page import Page, opened
    from scripts.reusing.serving import running

    browser = opened()
    if browser is None:
        raise MetafilmError(
            "no chromium and chromedriver here (Debian: apt install chromium chromium-driver)"
        )
    name = "omniglot-conv4"
    try:
        with running(MetaFiLM.from_pretrained(name), name) as server:
            browser.get(server.url)
            shown = Page(browser)
            shown.wait(lambda: browser.execute_script("return document.body.dataset.ready"))
            shown.teach()
            times = shown.answered(4 * repeats)
    finally:
        browser.quit()
    yield {"figure": "page", "learner": name, "image_size": 28, "unit": "ms", **middle(times)}


def onnx(repeats: int) -> Iterator[dict[str, Any]]:
    """The largest difference of logits."""
    from metafilm.serving import export

    for name, side in LEARNERS[:2]:
        pictures, labels = examples(side or 28)
        fitted = FewShotClassifier(name, image_size=side).fit(pictures, labels)
        with tempfile.TemporaryDirectory() as folder:
            found = export(
                fitted.task_, Path(folder) / "network.onnx", fitted.learner_.preprocess(pictures)[0]
            )
        difference = found.largest_difference
        yield {
            "figure": "onnx",
            "learner": name,
            "image_size": side or 28,
            "unit": "logit",
            "value": difference,
            "images": found.images,
            "bytes": found.bytes,
        }


def middle(values: Sequence[float]) -> dict[str, Any]:
    """The median, and all of them."""
    return {"value": statistics.median(values), "all": list(values)}


FIGURES = {"fit": fit, "page": page, "onnx": onnx}


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], help="all of them where none is named")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(words)


def said(row: dict[str, Any]) -> tuple[str, str]:
    """What was measured, and how much of it there is."""
    learner = f"`{row['learner']}`, {row['image_size']} × {row['image_size']}"
    if row["figure"] == "fit":
        spread = f"{min(row['all']):.2f} to {max(row['all']):.2f} s, the first time {row['first']:.1f} s"
        return f"`fit` on 5 classes of 5 pictures, {learner}", spread
    if row["figure"] == "page":
        spread = f"{min(row['all']):.0f} to {max(row['all']):.0f} ms"
        median = f"median {row['value']:.0f} of {len(row['all'])}"
        return f"page, last stroke to answer, {learner}", f"{spread}, {median}"
    what = f"ONNX Runtime against PyTorch, largest difference of logits, {learner}"
    return what, f"{row['value']:.1e} on {row['images']} pictures"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown, and on which machine they were measured."""
    lines = ["| what | measured |", "|---|---|", *(f"| {what} | {much} |" for what, much in map(said, rows))]
    where = "; ".join(sorted({f"{row['hardware']}, {row['threads']} threads" for row in rows}))
    return "\n".join([*lines, "", f"({where}.)"])


def write_page(rows: Sequence[dict[str, Any]]) -> None:
    """The table in its place on the page."""
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{mark}\n{table(rows)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main(words: Sequence[str] | None = None) -> int:
    options = parsed(words)
    torch.set_num_threads(options.threads)
    rows = []
    shared = {"threads": options.threads, "seed": SEED, "hardware": hardware(), "commit": commit()}
    for name in options.figures or FIGURES:
        command = f"python scripts/reuse.py {name} --repeats {options.repeats} --threads {options.threads}"
        for row in FIGURES[name](options.repeats):
            print(": ".join(said(row)), flush=True)
            rows.append({**row, **shared, "command": command})
    found = put(options.out, rows, lambda row: (row["figure"], row["learner"], row["image_size"]))
    if options.out == OUT:
        write_page(found)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MetafilmError as error:
        sys.exit(str(error))
