"""What a work consists of, and its episodes: random images with a fixed seed, the same for every system."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from episodes import Episode


@dataclass(frozen=True)
class Setting:
    """Shapes of the tasks, inner steps, tasks in a meta-batch, and the width of Conv-4."""

    size: int = 28
    channels: int = 1
    ways: int = 5
    shots: int = 1
    queries: int = 15
    steps: int = 2
    tasks: int = 16
    width: int = 64

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    @property
    def support_rows(self) -> int:
        return self.ways * self.shots

    @property
    def query_rows(self) -> int:
        return self.ways * self.queries

    @property
    def features(self) -> int:
        """What Conv-4 puts out."""
        return self.width * (self.size // 16) ** 2


TRAIN_28 = Setting()
TRAIN_84 = Setting(size=84, channels=3, shots=5, steps=5, tasks=4)
EVALUATE_28 = Setting(steps=5)
SERVE_28 = Setting(steps=1, queries=8)
MEMORY_28 = Setting(steps=10)


def episode(setting: Setting, tasks: int | None = None, dtype: torch.dtype = torch.float32) -> Episode:
    """T tasks of uniform random images in [0, 1]."""
    count = setting.tasks if tasks is None else tasks
    generator = torch.Generator().manual_seed(0)

    def images(rows: int) -> torch.Tensor:
        shape = (count, rows, *setting.image_shape)
        return torch.rand(shape, generator=generator, dtype=torch.float32).to(dtype)

    labels = torch.arange(setting.ways).expand(count, -1)
    return Episode(
        support_images=images(setting.support_rows),
        support_labels=labels.repeat_interleave(setting.shots, 1),
        query_images=images(setting.query_rows),
        query_labels=labels.repeat_interleave(setting.queries, 1),
        ways=setting.ways,
        index=torch.arange(count),
    )
