"""serve-1000: queries of 1,000 adapted tasks in mixed batches; and what is kept per adapted task.

In `serve-1000` the queries of all tasks come in random order, 256 rows at a time, and each batch is answered
before the next: a network per task sees the one or two of its rows that are in it. In `serve-1000-sorted` the
same rows come task by task, so that each adapted network gets its 8 queries at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from metafilm import TaskBank
from metafilm.learner.task import Task

from . import floor, learn2learn_systems, ours, plain
from .learn2learn_systems import MAML
from .records import Record, Run
from .records import build as build_records
from .rounds import Samples, System, say
from .tasks import SERVE_28, Setting, episode
from .training import PRECISIONS, make, measure

BATCH = 256  # rows that arrive together
QUERIES = 8


def serving(
    run: Run, work: str, rounds: int | None = None, *, setting: Setting = SERVE_28, tasks: int = 1000
) -> list[Record]:
    """``work``: serve-1000 or serve-1000-sorted; both precisions in the same rounds."""
    rows = torch.arange(tasks).repeat_interleave(QUERIES)
    if work == "serve-1000":
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    images = torch.rand(BATCH, *setting.image_shape, generator=torch.Generator().manual_seed(0))
    batches = list(rows.split(BATCH))
    some = batches[:: max(len(batches) // 8, 1)]  # enough for the slow ones: times are per 8 rows
    systems: list[System] = []
    missing: list[str] = []
    adapted: dict[bool, list[nn.Module]] = {}
    for precision in PRECISIONS:
        made, refused = make(
            {
                "metafilm": lambda p=precision: [bank(setting, p, images, batches, tasks)],
                "learn2learn": lambda p=precision: [networks(setting, p, images, some, tasks, adapted)],
                "floor": lambda p=precision: [
                    floor.system(setting, list(floor.of_serving(QUERIES)), p, tasks=64, together=(1, 4, 32))
                ],
            },
            (),
        )
        systems += made
        missing += refused
    return measure(run, work, systems, missing, rounds or 7, 2)


def adapted_tasks(setting: Setting, count: int) -> list[Task]:
    """Tasks of one learner: one that was adapted, and others around it."""
    learner = ours.learner(setting).eval()
    one = episode(setting, 1)
    first = learner.adapt(one.support_images[0], one.support_labels[0])
    generator = torch.Generator().manual_seed(0)

    def moved(value: Tensor) -> Tensor:
        return value + 0.01 * torch.randn(value.shape, generator=generator)

    return [
        Task(
            learner,
            {name: moved(value) for name, value in first.film.items()},
            first.state,
            first.statistics,
            first.classes,
        )
        for _ in range(count)
    ]


def bank(setting: Setting, precision: str, images: Tensor, batches: list[Tensor], tasks: int) -> System:
    """A `TaskBank` at its default batch size."""
    held = adapted_tasks(setting, tasks)
    served = TaskBank(held[0].learner, precision=precision)
    ids = torch.tensor(served.extend(held))
    wanted = [ids[rows] for rows in batches]

    def run() -> None:
        for part in wanted:
            served.logits(images[: len(part)], part)

    count = sum(map(len, batches)) // QUERIES
    note = f"{tasks} tasks held in {served.nbytes / tasks:.0f} bytes each, passes of {served.batch_size} rows"
    return System("metafilm", run, count, precision, note)


def networks(
    setting: Setting,
    precision: str,
    images: Tensor,
    batches: list[Tensor],
    tasks: int,
    adapted: dict[bool, list[nn.Module]],
) -> System:
    """One adapted MAML network per task; the rows of a batch are gathered by task.

    ``adapted``: the networks by layout, made once for both precisions.

    Raises:
        ImportError: learn2learn is not installed.
    """
    learn2learn_systems.load()

    def answering(channels_last: bool) -> Callable[[], object]:
        held = adapted.setdefault(channels_last, [])
        held += maml_networks(setting, channels_last, tasks - len(held))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        laid_out = images.contiguous(memory_format=layout)

        def run() -> None:
            with torch.no_grad(), plain.autocast(precision):
                for rows in batches:
                    logits = torch.empty(len(rows), setting.ways)
                    for task in rows.unique().tolist():
                        mine = (rows == task).nonzero().squeeze(1)
                        logits[mine] = held[task](laid_out[mine]).to(logits.dtype)

        return run

    count = sum(map(len, batches)) // QUERIES
    note = f"{tasks} networks, every weight adapted, running statistics; {len(batches)} of the batches"
    variants = tuple(
        System(MAML, answering(last), count, precision, layout)
        for last, layout in ((False, "contiguous"), (True, "channels_last"))
    )
    return System(MAML, lambda: None, count, precision, note, variants)


def maml_networks(setting: Setting, channels_last: bool, count: int) -> list[nn.Module]:
    """Clones of one learn2learn learner, each after one first-order step, in evaluation mode."""
    network = plain.build(setting, channels_last=channels_last, track=True).eval()
    maml = learn2learn_systems.load().algorithms.MAML(network, lr=ours.STEP_SIZE, first_order=True)
    one = learn2learn_systems.laid_out(episode(setting, 1), channels_last)
    found = []
    for _ in range(count):
        clone = maml.clone()
        clone.adapt(nn.functional.cross_entropy(clone(one.support_images[0]), one.support_labels[0]))
        found.append(clone)
    return found


def state(run: Run, setting: Setting = SERVE_28) -> list[Record]:
    """Bytes kept per adapted task: the file that `Task.save` writes; a MAML network's adapted weights."""
    say("state: 2 systems")
    task = adapted_tasks(setting, 1)[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task.safetensors"
        task.save(file)
        size = float(file.stat().st_size)
    network = plain.build(setting)
    weights = float(sum(value.numel() * value.element_size() for value in network.state_dict().values()))
    served = TaskBank(task.learner)
    served.extend([task] * 1000)
    systems = [
        System("metafilm", lambda: None, 1, note=f"a saved file; in a TaskBank {served.nbytes / 1000:.0f}"),
        System(MAML, lambda: None, 1, note="the adapted network's weights, without a file's header"),
    ]
    samples: Samples = {("metafilm", "float32"): [size], (MAML, "float32"): [weights]}
    return build_records(run, "state", systems, samples, "bytes per task; Conv-4, 28x28, 5 ways")
