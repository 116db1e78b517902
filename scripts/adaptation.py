"""What adapting a network to a task is worth, at home and abroad: results/adaptation.json.

    python scripts/adaptation.py list                               # the rows there are
    python scripts/adaptation.py score --scores adaptation.jsonl    # makes what is not there yet
    python scripts/adaptation.py score --backbone lite0 --dataset omniglot-within --shots 5 --arm gate
    python scripts/adaptation.py write --scores adaptation.jsonl    # the records, with gains over δ = 0

A row is a backbone, a data set, a number of shots and an arm: a way to go from the support set to a
classifier. All arms of a backbone see the same tasks, so that gains are paired. Scores are kept task by task
as they are made: a run that is stopped goes on where it was. Some rows need a network trained beforehand, by
the commands of `RUNS` in scripts/adapting/arms.py: the arms `encoder`, `encoder+steps` and `constant`
(`--encoder`, `--constant`: run directories), and the backbone conv4-miniimagenet (`--conv4`). Each record
names its own.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from episodes.progress import Progress  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from scripts import device  # noqa: E402
from scripts.adapting.arms import NETWORKS, RUNS, Arms, trained_by  # noqa: E402
from scripts.adapting.domains import DOMAINS, SEED, WAYS  # noqa: E402
from scripts.records import commit, hardware, put  # noqa: E402

OUT = ROOT / "results" / "adaptation.json"
TASKS = 100
SHOTS = (1, 2, 5, 15, 20)


@dataclass(frozen=True, order=True)
class Row:
    backbone: str
    dataset: str
    shots: int
    arm: str


def rows(arguments: argparse.Namespace) -> list[Row]:
    """Those asked for."""
    found = []
    for backbone, network in NETWORKS.items():
        arms = ["identity", "statistics", "logistic-regression", "steps", "gate", "fine-tuning"]
        arms += ["constant", "encoder", "encoder+steps"] if network.meta_trained else []
        found += [
            Row(backbone, dataset, shots, arm)
            for dataset in network.datasets
            for shots in SHOTS
            for arm in arms
            if shots <= DOMAINS[dataset].most and (shots != 15 or DOMAINS[dataset].most == 15)
        ]
    wanted = {name: getattr(arguments, name) for name in ("backbone", "dataset", "shots", "arm")}
    return [
        row
        for row in found
        if all(not values or getattr(row, name) in values for name, values in wanted.items())
    ]


def read(path: Path) -> dict[Row, dict[int, dict[str, Any]]]:
    """Row -> task -> its score. A last line cut short by a kill is left out."""
    found: dict[Row, dict[int, dict[str, Any]]] = {}
    lines = path.read_text().splitlines() if path.is_file() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        row = Row(entry["backbone"], entry["dataset"], entry["shots"], entry["arm"])
        found.setdefault(row, {})[entry["task"]] = entry
    return found


def score(arguments: argparse.Namespace) -> None:
    """Make the scores that are not in the file yet."""
    torch.set_num_threads(arguments.threads)
    device.choose(arguments.device)
    arms: dict[str, Arms] = {}
    for row in rows(arguments):
        there = read(arguments.scores).get(row, {})
        missing = [task for task in range(arguments.tasks) if task not in there]
        if not missing:
            continue
        if row.backbone not in arms:
            arms[row.backbone] = Arms(NETWORKS[row.backbone], arguments)
        own = arms[row.backbone]
        title = f"{row.backbone} {row.dataset} {row.shots}-shot {row.arm}"
        learner = own.learner
        learner.autocast = arguments.bfloat16
        weights = own.weights(row.arm)
        if others := {one.get("weights", weights) for one in there.values()} - {weights}:
            raise SystemExit(
                f"{title}: {arguments.scores} has scores of other weights ({', '.join(others)}) than these "
                f"({weights}); give another file, or take its lines out"
            )
        sampler = DOMAINS[row.dataset].sampler(
            arguments.split, row.shots, learner.image_shape, arguments.data_root
        )
        with arguments.scores.open("a") as file, Progress(title, total=len(missing)) as bar:
            for number in missing:
                task = sampler[number].to(device.chosen())
                begin = time.perf_counter()
                with torch.no_grad():
                    predicted = own.table[row.arm](task)
                seconds = time.perf_counter() - begin
                value = float(learner.head.measure(predicted, task.query_labels))
                entry = {**row.__dict__, "task": number, "score": value, "seconds": seconds}
                entry |= {
                    "split": arguments.split,
                    "queries": sampler.queries,
                    "bfloat16": arguments.bfloat16,
                    "hardware": hardware(device.chosen().type),
                    "commit": commit(),
                    "weights": weights,
                }
                file.write(json.dumps(entry) + "\n")
                file.flush()
                bar.advance()
        done = read(arguments.scores)[row]
        values = [done[task]["score"] for task in sorted(done)]
        print(f"{title}: {sum(values) / len(values):.2f} ± {interval(values):.2f}", flush=True)


def records(scores: dict[Row, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One record a row that has all its tasks, with its gain over δ = 0 on the same tasks, and for task
    encoders that over one δ for all tasks."""
    found = []
    for row, own in sorted(scores.items()):
        base = scores.get(replace(row, arm="identity"), {})
        tasks = sorted(own)
        if len(tasks) < TASKS or not set(tasks) <= set(base):
            continue
        values = [own[task]["score"] for task in tasks]
        gains = [own[task]["score"] - base[task]["score"] for task in tasks]
        same = scores.get(replace(row, arm="constant"), {}) if row.arm.startswith("encoder") else {}
        apart = [own[task]["score"] - same[task]["score"] for task in tasks if task in same]
        network = NETWORKS[row.backbone]
        last = own[tasks[-1]]
        hardware_of = sorted({one["hardware"] for one in own.values()})
        weights = {one["weights"] for one in own.values() if "weights" in one}
        if len(weights) > 1:
            raise SystemExit(f"{row} has scores of several weights: {', '.join(sorted(weights))}")
        run = trained_by(network, row.arm)
        found.append(
            {
                "backbone": row.backbone,
                "dataset": row.dataset,
                **{k: getattr(DOMAINS[row.dataset], k) for k in ("scheme", "within_group", "style")},
                "split": last["split"],
                "ways": WAYS,
                "shots": row.shots,
                "queries": last["queries"],
                "arm": row.arm,
                "steps": network.steps if row.arm in ("steps", "gate", "encoder+steps", "fine-tuning") else 0,
                "accuracy": sum(values) / len(values),
                "ci95": interval(values),
                "gain": sum(gains) / len(gains),
                "gain_ci95": interval(gains) if row.arm != "identity" else 0.0,
                **(
                    {"over_constant": sum(apart) / len(apart), "over_constant_ci95": interval(apart)}
                    if len(apart) == len(tasks)
                    else {}
                ),
                "episodes": len(tasks),
                "seed": SEED,
                "protocol": "inductive",
                "seconds_per_task": sum(own[task]["seconds"] for task in tasks) / len(tasks),
                "hardware": "; ".join(hardware_of),
                "commit": "; ".join(dict.fromkeys(own[task]["commit"] for task in tasks)),
                **({"weights": weights.pop()} if weights else {}),
                **({"train_command": RUNS[run]} if run else {}),
                "command": "python scripts/adaptation.py score "
                f"--backbone {row.backbone} --dataset {row.dataset} --shots {row.shots} --arm {row.arm} "
                f"--tasks {len(tasks)} --split {last['split']}"
                + (" --bfloat16" * last["bfloat16"])
                + (f" --{run} {RUNS[run].split()[-1]}" if run else "")
                + (" --device auto" if any("no GPU" not in name for name in hardware_of) else ""),
            }
        )
    return found


def key(record: dict[str, Any]) -> tuple[str, str, int, str]:
    """Which row a record is of."""
    return record["backbone"], record["dataset"], record["shots"], record["arm"]


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("list", "score", "write"))
    parser.add_argument("--scores", type=Path, default=Path("adaptation.jsonl"), help="scores task by task")
    parser.add_argument("--backbone", nargs="+", choices=list(NETWORKS))
    parser.add_argument("--dataset", nargs="+", choices=list(DOMAINS))
    parser.add_argument("--shots", nargs="+", type=int, choices=SHOTS)
    parser.add_argument("--arm", nargs="+")
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--split", default="test", help="val while something is still to be chosen")
    parser.add_argument("--encoder", type=Path, help="run directory of the network with a task encoder")
    parser.add_argument("--constant", type=Path, help="run directory of the network with one δ for all tasks")
    parser.add_argument("--conv4", type=Path, help="run directory of the Conv-4 trained on miniImageNet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--device", choices=device.NAMES, default="cpu", help="auto: a GPU where there is one"
    )
    parser.add_argument("--bfloat16", action="store_true", help="the backbone under autocast")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(words)


def main() -> int:
    arguments = parsed()
    if arguments.action == "list":
        for row in rows(arguments):
            print(row.backbone, row.dataset, f"{row.shots}-shot", row.arm)
    elif arguments.action == "score":
        score(arguments)
    else:
        # rows scored elsewhere or before stay, unless these scores have them anew
        found = put(arguments.out, records(read(arguments.scores)), key)
        print(f"{len(found)} records in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
