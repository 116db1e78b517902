"""What probabilities and rejections are worth on test classes: results/probabilities.json, quoted in
docs/your-own-pictures.md.

    metafilm calibrate metafilm/storage/shipped/omniglot-conv4.safetensors    # on validation classes, first
    python scripts/probabilities.py omniglot-conv4 --shots 5
    python scripts/probabilities.py runs/miniimagenet_5way_5shot --dataset miniimagenet --shots 5

A row is a learner, a data set, and a number of ways and shots; it takes the place of an earlier one of the
same. Each task has the queries of its own classes, which are to be named, and as many of other classes, which
are to be told as unknown. Temperature and threshold come from the weights' file, where `metafilm calibrate`
left what validation tasks said; nothing is chosen here.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from metafilm.config.sources import evaluation_source, on_data  # noqa: E402
from metafilm.engine.memory import keep_freed_memory  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from metafilm.evaluation import area, calibration_error, interval, judge, overlap, reliability  # noqa: E402
from metafilm.learner.build import load_learner  # noqa: E402
from scripts.records import commit, hardware  # noqa: E402
from scripts.records import put as into  # noqa: E402

OUT = ROOT / "results" / "probabilities.json"
PAGE = ROOT / "docs" / "your-own-pictures.md"
BEGIN, END = "<!-- results/probabilities.json -->", "<!-- end of probabilities -->"


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run directory, a weights file, or shipped weights; calibrated")
    parser.add_argument("--dataset", help="another data set than the run's")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=15, help="of each class")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="test")
    parser.add_argument("--reject", type=float, default=0.05, help="false-alarm rate asked for")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(words)


def command(options: argparse.Namespace) -> str:
    """What makes the row again, wherever data and records lie."""
    usual = vars(parsed([options.run]))
    said = [name for name, value in vars(options).items() if value != usual[name] or name == "shots"]
    words = [f"--{name} {getattr(options, name)}" for name in said if name not in ("out", "data_root")]
    return " ".join(["python", "scripts/probabilities.py", options.run, *words])


def record(options: argparse.Namespace) -> dict[str, Any]:
    """One row. Raises MetafilmError, EpisodesError."""
    keep_freed_memory()
    learner = load_learner(options.run)
    calibration = learner.calibrated()
    if calibration is None or learner.config is None:
        raise MetafilmError(f"{options.run} is not calibrated; metafilm calibrate {options.run} does that")
    config = learner.config
    if options.dataset is not None and options.dataset != config.data.name:
        config = on_data(config, options.dataset, learner.image_shape[-1])
    names = config.data.names
    if seen := overlap(learner, names):
        raise MetafilmError(f"{seen}: this would say nothing of new classes")
    source = evaluation_source(
        config,
        options.split,
        options.data_root,
        ways=2 * options.ways,
        shots=options.shots,
        queries=options.queries,
        seed=options.seed,
        channels=learner.image_shape[0],
    )
    begin = time.perf_counter()
    found = judge(learner, source.sampler, options.episodes, ways=options.ways)
    logits, labels = torch.cat(found.logits), torch.cat(found.labels)
    temperature = calibration.temperature(options.shots)
    plain, tempered = ((logits / t).softmax(-1) for t in (1.0, temperature))
    auroc, auroc_ci95 = area(found.known, found.unknown)
    threshold = calibration.threshold(options.reject, options.shots)
    alarms = [float((scores < threshold).double().mean()) for scores in found.known]
    caught = [float((scores < threshold).double().mean()) for scores in found.unknown]
    right = [
        100 * float((said.argmax(-1) == truth).double().mean())
        for said, truth in zip(found.logits, found.labels, strict=True)
    ]
    return {
        "dataset": names[0] if len(names) == 1 else list(names),
        "split": options.split,
        "ways": options.ways,
        "shots": options.shots,
        "queries": options.queries,
        "episodes": options.episodes,
        "seed": options.seed,
        "checkpoint": str(options.run),
        "weights": learner.fingerprint(),
        "calibrated_on": calibration.tasks,
        "temperature": temperature,
        "ece_before": calibration_error(plain, labels),
        "ece_after": calibration_error(tempered, labels),
        "reliability_before": [part._asdict() for part in reliability(plain, labels)],
        "reliability_after": [part._asdict() for part in reliability(tempered, labels)],
        "accuracy": sum(right) / len(right),
        "accuracy_ci95": interval(right),
        "auroc": auroc,
        "auroc_ci95": auroc_ci95,
        "false_alarm_asked": options.reject,
        "false_alarm_measured": sum(alarms) / len(alarms),
        "false_alarm_ci95": interval(alarms),
        "unknown_caught": sum(caught) / len(caught),
        "protocol": learner.protocol,
        "wall_seconds": time.perf_counter() - begin,
        "command": command(options),
        "hardware": hardware(),
        "commit": commit(),
    }


def put(row: dict[str, Any], path: Path) -> None:
    """Into the file, in the place of an earlier one of the same learner, data, ways and shots."""
    same = ("checkpoint", "dataset", "split", "ways", "shots")
    into(path, [row], lambda one: tuple(str(one[key]) for key in same))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown, for docs/your-own-pictures.md."""
    lines = [
        "| data | shots | accuracy | calibration error at T = 1 | at the kept temperature | AUROC, known "
        "against unknown | known taken for unknown, 5 % asked | unknown found |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['dataset']} | {row['shots']} | {row['accuracy']:.2f} ± {row['accuracy_ci95']:.2f} % "
            f"| {row['ece_before']:.2f} % | {row['ece_after']:.2f} % "
            f"| {row['auroc']:.4f} ± {row['auroc_ci95']:.4f} "
            f"| {100 * row['false_alarm_measured']:.1f} ± {100 * row['false_alarm_ci95']:.1f} % "
            f"| {100 * row['unknown_caught']:.1f} % |"
        )
    return "\n".join(lines)


def write_page(rows: Sequence[dict[str, Any]]) -> None:
    """The table in its place on the page."""
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{mark}\n{table(rows)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    given = parsed()
    row = record(given)
    put(row, given.out)
    if given.out == OUT:
        write_page(json.loads(OUT.read_text()))
    print(
        f"ECE {row['ece_before']:.2f} % before, {row['ece_after']:.2f} % after; AUROC {row['auroc']:.4f} ± "
        f"{row['auroc_ci95']:.4f}; {100 * row['false_alarm_measured']:.1f} % of known pictures taken for "
        f"unknown, {100 * row['unknown_caught']:.1f} % of unknown ones found; written to {given.out}"
    )
