"""Related systems, same tasks, network and budget: results/compare.json.

    python scripts/compare.py list                          # the rows there are, and how far they are
    python scripts/compare.py score --folder runs/compare   # trains and scores what is not there yet
    python scripts/compare.py score --work omniglot-20w1s --budget time --system metafilm learn2learn-maml
    python scripts/compare.py write --folder runs/compare   # the records, with gains in pairs

A row is a work (data set, ways, shots), a budget and a system: methods as settings of metafilm's engine,
learn2learn's algorithms on the same tasks, scikit-learn's classifiers on the features of plain prototypes,
and metafilm in full. All train on tasks of one shape with the same Conv-4 of 64 maps in bfloat16, AdamW, a
warm-up and a cosine, and keep the weights that are best on validation tasks. Budgets: so many `images` drawn;
so many seconds (`time`; validation does not count); `target`: as time, for the systems of that question,
validated often: minutes to a validation accuracy. --images and --seconds are for rows not begun yet.

One row at a time, each resumed exactly where it was cut; nothing is trained or scored twice. A row's test
tasks are those of every other row of its work, so that the gains of metafilm in full are paired.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from metafilm.evaluation import interval  # noqa: E402
from metafilm.storage.atomic import atomic_write, finite  # noqa: E402
from scripts.comparing import frozen, ours, peers  # noqa: E402
from scripts.comparing.works import WORKS, Work  # noqa: E402
from scripts.records import commit, hardware  # noqa: E402

OUT = ROOT / "results" / "compare.json"
FULL = "metafilm"
SYSTEMS = (*ours.SYSTEMS, *frozen.NOTES, *peers.SYSTEMS)
TARGET = (FULL, "learn2learn-protonet", "learn2learn-maml")
VALIDATIONS = {"images": 6, "time": 6, "target": 24}


@dataclass(frozen=True)
class Row:
    work: str
    budget: str
    system: str

    def folder(self, top: Path) -> Path:
        """Where its training lies."""
        base = frozen.BASE if self.system in frozen.NOTES else self.system
        return top / self.work / self.budget / base

    def file(self, top: Path) -> Path:
        """What was scored."""
        return top / self.work / self.budget / f"{self.system}.json"


def rows(arguments: argparse.Namespace) -> list[Row]:
    """Those asked for."""
    found = [
        Row(work, budget, system)
        for work in WORKS
        for budget in VALIDATIONS
        for system in SYSTEMS
        if budget != "target" or system in TARGET
    ]
    wanted = {name: getattr(arguments, name) for name in ("work", "budget", "system")}
    return [
        row
        for row in found
        if all(not values or getattr(row, name) in values for name, values in wanted.items())
    ]


def state(row: Row, top: Path) -> str:
    if row.file(top).is_file():
        return "scored"
    return "begun" if row.folder(top).is_dir() else "-"


def amount(row: Row, arguments: argparse.Namespace) -> float:
    work = WORKS[row.work]
    if row.budget == "images":
        return arguments.images or work.images
    return arguments.seconds or work.seconds


def score(row: Row, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, and score on the test tasks; the record without its gains, and the score of each task."""
    work: Work = WORKS[row.work]
    folder, root = row.folder(arguments.folder), arguments.data_root
    peer = row.system in peers.SYSTEMS
    name = frozen.BASE if row.system in frozen.NOTES else row.system
    report = (peers if peer else ours).trained(
        work, name, row.budget, amount(row, arguments), folder, root, VALIDATIONS[row.budget]
    )
    tasks = arguments.tasks or work.test_tasks
    source = work.evaluation(arguments.split, root)
    if peer:
        each = peers.scores(work, row.system, folder, source, tasks, root)
    elif row.system in frozen.NOTES:
        each = frozen.scores(row.system, folder, source, tasks)
        report["note"] = frozen.NOTES[row.system]
    else:
        each = ours.scores(folder, source, tasks)
    return {
        "work": row.work,
        "budget": row.budget,
        "system": row.system,
        "dataset": work.dataset,
        "split": arguments.split,
        "ways": work.ways,
        "shots": work.shots,
        "queries": 15,
        "episodes": tasks,
        "seed": 0,
        "accuracy": sum(each) / tasks,
        "ci95": interval(each),
        **report,
        "target": work.target,
        "minutes_to_target": minutes_to(work.target, report["curve"]),
        "command": command(row, arguments),
        "hardware": hardware(),
        "commit": commit(),
        "scores": each,
    }


def command(row: Row, arguments: argparse.Namespace) -> str:
    """What makes this record again."""
    words = [
        "python scripts/compare.py score --work",
        row.work,
        "--budget",
        row.budget,
        "--system",
        row.system,
    ]
    for name in ("images", "seconds", "tasks"):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name}", str(value)]
    return " ".join([*words, "--threads", str(arguments.threads), "--split", arguments.split])


def minutes_to(target: float, curve: list[tuple[float, float]]) -> float | None:
    """Of training until a validation reached it; None: none did."""
    return next((seconds / 60 for seconds, value in curve if value >= target), None)


def records(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the scores of single tasks, and with what metafilm in full has over each row, in points, by the
    tasks' own differences."""
    full = {(one["work"], one["budget"]): one["scores"] for one in found if one["system"] == FULL}
    made = []
    for one in found:
        record = {name: value for name, value in one.items() if name != "scores"}
        ahead = full.get((one["work"], one["budget"]))
        if ahead is not None and one["system"] != FULL and len(ahead) == len(one["scores"]):
            gains = [a - b for a, b in zip(ahead, one["scores"], strict=True)]
            record |= {"metafilm_gain": sum(gains) / len(gains), "metafilm_gain_ci95": interval(gains)}
        made.append(record)
    return made


def markdown(found: list[dict[str, Any]]) -> str:
    """The records as a table."""
    lines = [
        "| work | budget | system | accuracy | metafilm's gain | minutes | images | minutes to target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        gain = "–"
        if "metafilm_gain" in one:
            gain = f"{one['metafilm_gain']:+.2f} ± {one['metafilm_gain_ci95']:.2f}"
        reached = one["minutes_to_target"]
        cells = [one["work"], one["budget"], one["system"]]
        cells += [f"{one['accuracy']:.2f} ± {one['ci95']:.2f}", gain, f"{one['training_seconds'] / 60:.1f}"]
        cells += [f"{one['images']:,}", "–" if reached is None else f"{reached:.1f} ({one['target']:g} %)"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("list", "score", "write"))
    parser.add_argument("--folder", type=Path, default=Path("runs/compare"), help="of trainings and scores")
    parser.add_argument("--work", nargs="+", choices=list(WORKS))
    parser.add_argument("--budget", nargs="+", choices=list(VALIDATIONS))
    parser.add_argument("--system", nargs="+", choices=list(SYSTEMS))
    parser.add_argument("--images", type=int, help="another budget than the work's, for rows not begun yet")
    parser.add_argument("--seconds", type=float, help="likewise, of time and target")
    parser.add_argument("--tasks", type=int, help="test tasks; default: the work's")
    parser.add_argument("--split", default="test", help="val while something is still to be chosen")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    arguments = parsed(words)
    torch.set_num_threads(arguments.threads)
    asked = rows(arguments)
    if arguments.action == "list":
        for row in asked:
            print(row.work, row.budget, row.system, state(row, arguments.folder))
        return 0
    if arguments.action == "score":
        for row in asked:
            if state(row, arguments.folder) == "scored":
                continue
            found = score(row, arguments)
            atomic_write(row.file(arguments.folder), (json.dumps(finite(found)) + "\n").encode())
            print(
                f"{row.work} {row.budget} {row.system}: {found['accuracy']:.2f} ± {found['ci95']:.2f}",
                flush=True,
            )
        return 0
    files = [row.file(arguments.folder) for row in asked]
    found = records([json.loads(file.read_text()) for file in files if file.is_file()])
    # rows scored elsewhere or before stay, unless they are here anew
    before = json.loads(arguments.out.read_text()) if arguments.out.is_file() else []
    both = {(one["work"], one["budget"], one["system"]): one for one in [*before, *found]}
    order = [(row.work, row.budget, row.system) for row in rows(parsed(["list"]))]
    kept = [both[name] for name in order if name in both]
    atomic_write(arguments.out, (json.dumps(finite(kept), indent=2) + "\n").encode())
    print(markdown(kept))
    print(f"{len(kept)} records in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
