"""sample-28 and sample-84: tasks from real images held in memory, as float images with labels."""

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
FUSED, LEAN = "learn2learn-fused", "learn2learn-fused-lean"


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
    systems = [metafilm(pool, ours)]
    missing = ""
    try:
        systems += fused(pool, peers, on_device=work == "sample-28")
    except ImportError as error:
        missing = f"left out: learn2learn is not installed ({error})"
    say(f"{work}: {len(systems)} systems")
    chosen, _ = choose_all(systems)
    samples = interleave(chosen, rounds, 3)
    images = f"{data}: {len(pool.images)} images of {pool.num_classes} classes"
    note = f"{images}; {WAYS}-way, {SHOTS + QUERIES} images a class; no background thread"
    return build(run, work, chosen, samples, note, unit_note=missing)


def metafilm(pool: ClassPool, tasks: int) -> System:
    """Batches of 1 to 64 tasks by one gather from uint8 memory; each batch has episodes of its own."""
    sampler = EpisodeSampler(pool, WAYS, SHOTS, QUERIES, seed=0)
    numbers = itertools.count()

    def drawing(size: int) -> Callable[[], object]:
        def run() -> None:
            for _ in range(tasks // size):
                sampler.batch(list(itertools.islice(numbers, size)))

        return run

    variants = tuple(
        System("metafilm", drawing(size), tasks, note=f"{size} tasks per batch") for size in (4, 16, 64)
    )
    return System("metafilm", lambda: None, tasks, note="uint8 in memory", variants=variants)


class _Images(torch.utils.data.Dataset):
    """(image, label) pairs of a pool, as learn2learn takes its data."""

    def __init__(self, images: Tensor, labels: list[int]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.labels[index]


def fused(pool: ClassPool, tasks: int, on_device: bool) -> list[System]:
    """learn2learn's `FusedNWaysKShots`, over its own `OnDeviceDataset` where its data set of these images has
    no memory of its own (Omniglot; its miniImageNet holds float images in memory and indexes them, as
    `_Images` does), and over `_Images` alone, which is leaner: there also with uint8 in memory, made float
    after a task is put together, and the faster is kept.

    Raises:
        ImportError: learn2learn is not installed.
    """
    data = load().data
    labels = torch.arange(pool.num_classes).repeat_interleave(pool.counts).tolist()

    def drawing(dataset: torch.utils.data.Dataset) -> Callable[[], object]:
        tagged = data.MetaDataset(dataset)
        taskset = data.Taskset(
            tagged,
            task_transforms=[
                data.transforms.FusedNWaysKShots(tagged, n=WAYS, k=SHOTS + QUERIES),
                data.transforms.LoadData(tagged),
                data.transforms.RemapLabels(tagged),
                data.transforms.ConsecutiveLabels(tagged),
            ],
            num_tasks=-1,
        )

        def run() -> None:
            for _ in range(tasks):
                found, _ = taskset.sample()
                if found.dtype == torch.uint8:
                    found.to(torch.float32).div_(255)

        return run

    floats = _Images(pool.images.to(torch.float32).div_(255), labels)
    lean = (
        System(FUSED, drawing(floats), tasks, note="float32 in memory"),
        System(
            FUSED, drawing(_Images(pool.images, labels)), tasks, note="uint8 in memory, made float per task"
        ),
    )
    if not on_device:
        return [System(FUSED, lambda: None, tasks, note="data set as learn2learn's own", variants=lean)]
    return [
        System(
            FUSED, drawing(data.OnDeviceDataset(floats)), tasks, note="learn2learn's OnDeviceDataset, float32"
        ),
        System(LEAN, lambda: None, tasks, note="a data set written for this benchmark", variants=lean),
    ]
