"""Peak resident memory of one meta-training step, each system in a fresh process.

python -m scripts.benchmarks.memory SYSTEM     # what a child runs; prints bytes
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .records import Record, Run, build
from .rounds import Samples, System, say
from .tasks import MEMORY_28, Setting, episode

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = (
    "metafilm",
    "learn2learn-maml",
    "learn2learn-maml-first-order",
    "learn2learn-anil",
    "parallel-metalearn",
    "per-task-loop",
)


def memory(run: Run, rounds: int | None = None, only: Sequence[str] = ()) -> list[Record]:
    """Bytes above the idle process (imports, model, images) of one step; a fresh process per round."""
    wanted = [name for name in SYSTEMS if not only or name in only]
    samples: Samples = {}
    missing: list[str] = []
    say(f"memory: {len(wanted)} systems")
    for number in range(rounds or 3):
        say(f"  round {number + 1}")
        for name in wanted:
            try:
                samples.setdefault((name, "float32"), []).append(_child(name, run.threads))
            except RuntimeError as error:
                missing.append(str(error))
        wanted = [name for name in wanted if samples.get((name, "float32"))]
    systems = [System(name, _nothing, MEMORY_28.tasks, note=_note(name)) for name in wanted]
    shapes = (
        "bytes above the idle process; 28x28, 5-way 1-shot, 15 queries, 10 inner steps, second order, "
        "16 tasks; a fresh process per round, allocator as it comes"
    )
    left_out = f"left out: {'; '.join(dict.fromkeys(missing))}" if missing else ""
    return build(run, "memory", systems, samples, shapes, unit_note=left_out)


def _nothing() -> None:
    """These systems run in processes of their own."""


def _note(name: str) -> str:
    if name == "parallel-metalearn":
        return "task by task, which takes the least (by default it holds all 16 at once)"
    return "first order" if name.endswith("first-order") else ""


def _child(name: str, threads: int) -> int:
    from . import ours

    settings = json.dumps(ours.overrides)
    done = subprocess.run(
        [sys.executable, "-m", __name__.replace("__main__", "memory"), name, str(threads), settings],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return int(done.stdout.split()[-1])


def step_of(name: str, setting: Setting) -> Callable[[], object]:
    """Builds a system (model, optimiser, images); calling what it returns does one meta-batch."""
    from . import learn2learn_systems, other_systems, ours

    if name == "metafilm":
        loop, tasks = ours.outer_loop(setting, "float32"), episode(setting)
        return lambda: loop.step(ours.chunked(loop, tasks))  # choosing the chunks is part of every run
    if name == "parallel-metalearn":
        return (
            other_systems.parallel(setting, "float32", "train", setting.tasks, ("sequential",))
            .variants[0]
            .run
        )
    if name == "per-task-loop":
        return other_systems.loop(setting, "float32", "train", setting.tasks).run
    adapting = learn2learn_systems.Adapting(name, setting, "float32", False)
    batch = episode(setting)
    return lambda: adapting.train(batch)


def resident(line: str) -> int:
    """VmRSS or VmHWM of this process in bytes; where there is no /proc, the peak so far."""
    status = Path("/proc/self/status")
    if status.exists():
        for found in status.read_text().splitlines():
            if found.startswith(line + ":"):
                return int(found.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(name: str, threads: int, overrides: dict) -> None:
    import torch

    from . import ours

    torch.set_num_threads(threads)
    ours.overrides.update(overrides)
    step = step_of(name, MEMORY_28)
    idle = resident("VmRSS")
    step()
    print(resident("VmHWM") - idle)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
