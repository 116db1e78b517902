"""metafilm beside its peers and the floor: every comparison in one process tree, in interleaved rounds.

    python scripts/benchmark.py training --threads 1 --json results/benchmark/training.json
    python scripts/benchmark.py evaluation            # evaluate-28
    python scripts/benchmark.py sampling              # sample-28, sample-84; needs the real data
    python scripts/benchmark.py serving               # serve-1000, serve-1000-sorted, state
    python scripts/benchmark.py memory                # peak resident memory, import time
    python scripts/benchmark.py scaling               # two processes against one
    python scripts/benchmark.py adaptation            # a pre-trained network on one task: time and memory
    python scripts/benchmark.py page                  # the tables of results/benchmark into docs/engine.md

The peers: pip install --no-deps -r scripts/benchmarks/requirements.txt. One that is not there is left out,
and metafilm's record says so.

Times are seconds per task: the median over the rounds, and the spread between their 25th and 75th percentile.
Each round runs every system once, in turn; warm-up rounds come first and don't count. Every peer runs in the
memory layout in which a short measurement just before found it faster, in bfloat16 under autocast, and shares
metafilm's allocator setting (all but `memory`). A record's note says which way was chosen, and the floor's
which convolutions were counted.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder: `scripts.benchmarks` however this file is started

from metafilm.engine.memory import keep_freed_memory  # noqa: E402
from scripts.benchmarks import ours  # noqa: E402
from scripts.benchmarks.records import Record, Run, committed, fill, table  # noqa: E402

WORKS = {
    "training": ("train-28", "train-84"),
    "evaluation": ("evaluate-28",),
    "sampling": ("sample-28", "sample-84"),
    "serving": ("serve-1000", "serve-1000-sorted", "state"),
    "memory": ("memory", "import"),
    "scaling": ("scale-2",),
    "adaptation": ("adapt-lite0-96", "adapt-lite0-96-memory"),
}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*WORKS, "page"])
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--rounds", type=int, help="timed rounds; each work has its own default")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every process (default 1)")
    parser.add_argument("--work", action="append", default=[], help="this work alone (may be repeated)")
    parser.add_argument("--system", action="append", default=[], help="this system alone (may be repeated)")
    parser.add_argument(
        "--ours", action="append", default=[], metavar="KEY=VALUE", help="a setting of metafilm's config"
    )
    parser.add_argument("--data-root", type=Path, help="where the real data lie (sampling)")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.work) - set(WORKS.get(arguments.what, ())):
        parser.error(f"--work must be one of {', '.join(WORKS.get(arguments.what, ()))}, is {min(unknown)}")
    if arguments.threads < 1 or (arguments.rounds is not None and arguments.rounds < 1):
        parser.error("--threads and --rounds must be at least 1")
    return arguments


def command(arguments: argparse.Namespace) -> str:
    """What makes these records again, without where they went and where the data lie."""
    words = ["python scripts/benchmark.py", arguments.what, f"--threads {arguments.threads}"]
    words += [f"--rounds {arguments.rounds}"] if arguments.rounds else []
    for flag in ("work", "system", "ours"):
        words += [f"--{flag} {value}" for value in getattr(arguments, flag)]
    return " ".join(words)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """All records of one command."""
    run = Run.now(command(arguments), arguments.threads)
    records: list[Record] = []
    for work in arguments.work or WORKS[arguments.what]:
        records += one(run, work, arguments)
    return records


def one(run: Run, work: str, arguments: argparse.Namespace) -> list[Record]:
    rounds, only = arguments.rounds, arguments.system
    if work.startswith("train-"):
        from scripts.benchmarks.training import training

        return training(run, work, rounds, only=only)
    if work == "evaluate-28":
        from scripts.benchmarks.training import evaluation

        return evaluation(run, rounds, only=only)
    if work.startswith("sample-"):
        from scripts.benchmarks.sampling import sampling

        return sampling(run, work, rounds, arguments.data_root)
    if work.startswith("serve-"):
        from scripts.benchmarks.serving import serving

        return serving(run, work, rounds)
    if work == "state":
        from scripts.benchmarks.serving import state

        return state(run)
    if work == "memory":
        from scripts.benchmarks.memory import memory

        return memory(run, rounds, only)
    if work.startswith("adapt-"):
        from scripts.benchmarks import adaptation

        return (
            adaptation.memory(run, rounds) if work.endswith("-memory") else adaptation.adaptation(run, rounds)
        )
    if work == "import":
        from scripts.benchmarks.processes import importing

        return importing(run, rounds)
    from scripts.benchmarks.processes import scaling

    return scaling(run, rounds)


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    if arguments.what == "page":
        page = ROOT / "docs" / "engine.md"
        page.write_text(fill(page.read_text(), committed(ROOT / "results" / "benchmark")))
        return 0
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # for the processes that are started from here
    torch.set_num_threads(arguments.threads)
    if arguments.what != "memory":
        keep_freed_memory()
    for assignment in arguments.ours:
        ours.override(assignment)
    records = measure(arguments)
    print(f"{arguments.threads} threads" if arguments.threads > 1 else "1 thread")
    print(table(records))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    return 0 if records else 1


if __name__ == "__main__":
    sys.exit(main())
