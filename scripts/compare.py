"""Related systems, same tasks, network and budget: results/compare.json.

    python scripts/compare.py list                          # the rows there are, and how far they are
    python scripts/compare.py score --folder runs/compare   # trains and scores what is not there yet
    python scripts/compare.py score --work omniglot-20w1s --budget time --system metafilm learn2learn-maml
    python scripts/compare.py write --folder runs/compare   # the records, with gains in pairs

A row is a work (data set, ways, shots), a budget and a system: methods as settings of metafilm's engine,
learn2learn's algorithms on the same tasks, scikit-learn's classifiers on the features of plain prototypes,
and metafilm in full. All train on tasks of one shape with the same Conv-4 of 64 maps in bfloat16, AdamW, a
warm-up and a cosine, and keep the weights (their moving average) that are best on validation tasks. Budgets:
so many `images` drawn; so many seconds (`time`; validation does not count), planned from a short measurement,
so that a record says by how much a training missed them; `target`: minutes to a validation accuracy, for the
systems of that question, of a training that is as short as it may be: budgets of time are tried from a short
one on, each half as long again as the one before or twice, until a training reaches it. Systems called
`-wide` and `-cells` train on tasks of many ways, one a step, and the latter's network has the same
convolutions with fewer poolings, as those of `metafilm-mean` and `metafilm-pretrained` have.
--images and --seconds are for rows not begun yet.

One row at a time, each resumed exactly where it was cut; nothing is trained or scored twice, and a row that
fails is told at the end. A row's test tasks are those of every other row of its work, so that the gains of
metafilm in full are paired.
"""

import argparse
import json
import shlex
import sys
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from episodes.errors import EpisodesError  # noqa: E402
from metafilm.errors import MetafilmError, RunError  # noqa: E402
from metafilm.evaluation import interval  # noqa: E402
from metafilm.storage.atomic import atomic_write, finite  # noqa: E402
from metafilm.storage.run import RunDirectory  # noqa: E402
from scripts.comparing import frozen, ours, peer_training, peers, plans  # noqa: E402
from scripts.comparing.table import FULL, markdown, merged, missed  # noqa: E402
from scripts.comparing.works import WORKS, Work  # noqa: E402
from scripts.records import commit, hardware  # noqa: E402

OUT = ROOT / "results" / "compare.json"
SYSTEMS = (*ours.SYSTEMS, *frozen.NOTES, *peers.SYSTEMS)
TARGET = (
    FULL,
    "metafilm-plain",
    "metafilm-pretrained",
    "metafilm-wide",
    "metafilm-cells",
    "learn2learn-protonet",
    "learn2learn-protonet-wide",
    "learn2learn-maml",
)
VALIDATIONS = {"images": 6, "time": 6, "target": 12}
FAILURES = (MetafilmError, EpisodesError, RuntimeError)


@dataclass(frozen=True)
class Row:
    work: str
    budget: str
    system: str

    def folder(self, top: Path) -> Path:
        """Where its training lies."""
        base = frozen.BASE if self.system in frozen.NOTES else self.system
        return top / self.work / self.budget / base

    def file(self, arguments: argparse.Namespace) -> Path:
        """What was scored, of so many tasks of a split."""
        tasks = arguments.tasks or WORKS[self.work].test_tasks
        name = f"{self.system}-{arguments.split}-{tasks}.json"
        return arguments.folder / self.work / self.budget / name

    def __str__(self) -> str:
        return f"{self.work} {self.budget} {self.system}"


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


def scored(row: Row, arguments: argparse.Namespace) -> bool:
    return row.file(arguments).is_file()


def state(row: Row, arguments: argparse.Namespace) -> str:
    """How far it is, and what of it is no use."""
    if scored(row, arguments):
        return "scored"
    try:
        said = "begun" if any(plans.Plan.read(folder) for folder, _ in trainings(row, arguments)) else "-"
    except RunError as error:
        said = f"can't go on: {error}"
    older = row.file(arguments).with_name(f"{row.system}.json")
    return f"{said}; {older} is of an older version, and not read" if older.is_file() else said


def trainings(row: Row, arguments: argparse.Namespace) -> list[tuple[Path, float]]:
    """The row's folders and budgets: one, or of `target` one after the other until it is reached.

    Raises:
        RunError: it was begun with another budget than is asked for.
    """
    work, folder = WORKS[row.work], row.folder(arguments.folder)
    if row.budget == "target":
        ladder = work.ladder if arguments.seconds is None else (arguments.seconds,)
        return [(folder / f"{seconds:g}", seconds) for seconds in ladder]
    images = row.budget == "images"
    asked, usual = (arguments.images, work.images) if images else (arguments.seconds, work.seconds)
    return [(folder, plans.amount_of(folder, asked, usual))]


def score(row: Row, arguments: argparse.Namespace, todo: list[tuple[Path, float]]) -> dict[str, Any]:
    """Train, and score on the test tasks; the record without its gains, and the score of each task.

    Args:
        todo: the row's trainings; of those towards a target the first that reaches it is scored, or the last.

    Raises:
        RunError: the row was begun with other settings.
    """
    work: Work = WORKS[row.work]
    root = arguments.data_root
    peer = row.system in peers.SYSTEMS
    name = frozen.BASE if row.system in frozen.NOTES else row.system
    tried: list[float] = []
    for folder, budget in todo:
        tried.append(budget)
        report = (peer_training if peer else ours).trained(
            work, name, row.budget, budget, folder, root, VALIDATIONS[row.budget]
        )
        reached = minutes_to(work.target, report["curve"])
        if row.budget != "target" or reached is not None:
            break
    tasks = arguments.tasks or work.test_tasks
    source = work.evaluation(arguments.split, root)
    if peer:
        each = peer_training.scores(work, row.system, folder, source, tasks, root)
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
        "seed": work.seed(arguments.split),
        "accuracy": sum(each) / tasks,
        "ci95": interval(each),
        **report,
        **({} if row.budget == "images" else missed(budget, report["training_seconds"])),
        "target": work.target,
        "minutes_to_target": reached,
        **({"tried_seconds": tried} if row.budget == "target" else {}),
        "command": command(row, arguments, budget),
        "hardware": hardware(),
        "commit": commit(),
        "scores": each,
    }


def command(row: Row, arguments: argparse.Namespace, budget: float) -> str:
    """What makes this record again."""
    work = WORKS[row.work]
    images = row.budget == "images"
    by_trying = row.budget == "target" and arguments.seconds is None
    words = ["python", "scripts/compare.py", "score", "--work", row.work, "--budget", row.budget]
    words += ["--system", row.system]
    if not by_trying and (row.budget == "target" or budget != (work.images if images else work.seconds)):
        words += ["--images", str(int(budget))] if images else ["--seconds", repr(budget)]
    if arguments.tasks is not None:
        words += ["--tasks", str(arguments.tasks)]
    words += ["--threads", str(arguments.threads), "--split", arguments.split]
    return shlex.join([*words, "--folder", arguments.folder.as_posix()])


def require_tried(row: Row, arguments: argparse.Namespace) -> None:
    """Raises RunError: minutes to a target that were asked for within one budget were measured by others."""
    if row.budget != "target" or arguments.seconds is None:
        return
    tried = json.loads(row.file(arguments).read_bytes())["tried_seconds"]
    if tried != [arguments.seconds]:
        raise RunError(
            f"{row.file(arguments)} is of budgets of {', '.join(f'{one:g}' for one in tried)} s; delete it "
            "to have others tried, or leave --seconds out"
        )


def minutes_to(target: float, curve: list[tuple[float, float]]) -> float | None:
    """Of training until a validation reached it; None: none did."""
    return next((seconds / 60 for seconds, value in curve if value >= target), None)


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
            print(row, state(row, arguments))
        return 0
    if arguments.action == "score":
        failed = [row for row in asked if not made(row, arguments)]
        if failed:
            print(f"{len(failed)} of {len(asked)} rows failed: {', '.join(map(str, failed))}")
        return int(bool(failed))
    before = json.loads(arguments.out.read_bytes()) if arguments.out.is_file() else []
    everything = rows(parsed(["list"]))
    files = [row.file(arguments) for row in everything]
    scored = [json.loads(file.read_bytes()) for file in files if file.is_file()]
    kept = merged(before, scored, [astuple(row) for row in asked], [astuple(row) for row in everything])
    atomic_write(arguments.out, (json.dumps(finite(kept), indent=2) + "\n").encode())
    print(markdown(kept))
    print(f"{len(kept)} records in {arguments.out}")
    return 0


def made(row: Row, arguments: argparse.Namespace) -> bool:
    """Train and score a row that is not scored yet, alone in its folder; whether it is there now."""
    folder = row.folder(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with RunDirectory(folder) as holder:
            holder.lock()
            todo = trainings(row, arguments)
            if scored(row, arguments):
                require_tried(row, arguments)
                return True
            found = score(row, arguments, todo)
            atomic_write(row.file(arguments), (json.dumps(finite(found)) + "\n").encode())
    except FAILURES as error:
        print(f"{row}: failed: {error}", flush=True)
        return False
    print(f"{row}: {found['accuracy']:.2f} ± {found['ci95']:.2f}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
