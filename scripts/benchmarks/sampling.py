"""sample-28 and sample-84: tasks from real images held in memory, delivered as float32 and as uint8."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import episodes
from episodes import ClassPool, EpisodeSampler, EpisodesError

from .learn2learn_systems import load
from .records import Record, Run, build
from .rounds import System, choose_all, interleave, say

# data set, split, tasks per round of metafilm and of learn2learn
SOURCES = {"sample-28": ("omniglot", "train", 1024, 128), "sample-84": ("miniimagenet", "val", 128, 64)}
WAYS, SHOTS, QUERIES = 5, 1, 15  # 16 images a class
FUSED, UNBOUNDED = "learn2learn-fused", "learn2learn-fused-unbounded"
NAMES = {torch.float32: "float32", torch.uint8: "uint8"}


def sampling(run: Run, work: str, rounds: int | None = None, root: Path | None = None) -> list[Record]:
    """Both samplers over the same images; none where the data are absent."""
    name, split, ours, peers = SOURCES[work]
    try:
        pool = episodes.load(name, split, root=root)
    except EpisodesError as error:
        say(f"{work}: skipped, {name} is not there: {error}")
        return []
    return compare(run, work, pool, f"{name} {split}", ours, peers, rounds or 9)


def compare(
    run: Run, work: str, pool: ClassPool, data: str, ours: int, peers: int, rounds: int
) -> list[Record]:
    systems = [metafilm(pool, ours, torch.float32), metafilm(pool, ours, torch.uint8)]
    missing = ""
    try:
        systems += fused(pool, peers)
    except ImportError as error:
        missing = f"left out: learn2learn is not installed ({error})"
    say(f"{work}: {len(systems)} systems")
    chosen, _ = choose_all(systems)
    samples = interleave(chosen, rounds, 3)
    images = f"{data}: {len(pool.images)} images of {pool.num_classes} classes"
    note = f"{images}; {WAYS}-way, {SHOTS + QUERIES} images a class; no background thread"
    return build(run, work, chosen, samples, note, unit_note=missing)


def metafilm(pool: ClassPool, tasks: int, dtype: torch.dtype) -> System:
    """Batches of 1 to 64 tasks by one gather from uint8 memory; each batch has episodes of its own."""
    sampler = EpisodeSampler(pool, WAYS, SHOTS, QUERIES, seed=0, dtype=dtype)
    numbers = itertools.count()

    def drawing(size: int) -> Callable[[], object]:
        def run() -> None:
            for _ in range(tasks // size):
                sampler.batch(list(itertools.islice(numbers, size)))

        return run

    kind = NAMES[dtype]
    variants = tuple(
        System("metafilm", drawing(size), tasks, kind, note=f"{size} tasks per batch") for size in (4, 16, 64)
    )
    return System("metafilm", lambda: None, tasks, kind, note="uint8 in memory", variants=variants)


class _Images(torch.utils.data.Dataset):
    """(image, label) pairs of a pool, as learn2learn takes its data."""

    def __init__(self, images: Tensor, labels: list[int]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.labels[index]


def fused(pool: ClassPool, tasks: int) -> list[System]:
    """learn2learn's `FusedNWaysKShots`, for float32 and for uint8 images.

    `learn2learn-fused`: images in memory and 20,000 tasks, the number learn2learn's own examples ask for;
    `learn2learn-fused-unbounded`: without that number, which spares it the remembering of tasks.

    Raises:
        ImportError: learn2learn is not installed.
    """
    data = load().data
    labels = torch.arange(pool.num_classes).repeat_interleave(pool.counts).tolist()

    def drawing(images: Tensor, count: int) -> Callable[[], object]:
        tagged = data.MetaDataset(_Images(images, labels))
        taskset = data.Taskset(
            tagged,
            task_transforms=[
                data.transforms.FusedNWaysKShots(tagged, n=WAYS, k=SHOTS + QUERIES),
                data.transforms.LoadData(tagged),
                data.transforms.RemapLabels(tagged),
                data.transforms.ConsecutiveLabels(tagged),
            ],
            num_tasks=count,
        )

        def run() -> None:
            for _ in range(tasks):
                taskset.sample()

        return run

    floats = pool.images.to(torch.float32).div_(255)
    return [
        System(name, drawing(images, count), tasks, NAMES[images.dtype], note=note)
        for name, count, note in ((FUSED, 20_000, "num_tasks=20000"), (UNBOUNDED, -1, "num_tasks=-1"))
        for images in (floats, pool.images)
    ]
