"""The two works that systems are compared on: tasks, network, optimiser and budgets, the same for all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metafilm.config import Config
from metafilm.config.sources import Source, evaluation_source, training_source

VALIDATION_SEED = 1_000_000
PRECISION = "bfloat16"
MAML_STEPS = 5  # of MAML and ANIL, in training and in evaluation


@dataclass(frozen=True)
class Work:
    """One kind of tasks.

    Attributes:
        ways, shots: of every task; MAML's head has so many outputs, so that training takes no range.
        queries: of a class, in training; 15 in every evaluation.
        images: the budget in images drawn (support and query, and plain ones of a classification stage).
        seconds: the budget in seconds of training, validation not counted.
        target: validation accuracy in percent whose time is taken.
        ladder: budgets in seconds for that, tried from the first on until one is enough.
        pretrain: settings of a classification stage, for systems that have one.
        many_ways: of the training tasks of systems that train on more ways than they are asked for.
        cell_pools: poolings of the network for heads that compare the cells of its last maps.
        maml_step: learning rate of MAML's and ANIL's inner steps, of a mean cross entropy.
        training_ways: of training tasks; None: as asked for.
        rotated_classes: whether turned classes are classes of their own, as the field has Omniglot.
    """

    name: str
    dataset: str
    image_size: int
    channels: int
    ways: int
    shots: int
    queries: int
    augment: str
    images: int
    seconds: float
    target: float
    ladder: tuple[float, ...]
    test_tasks: int
    backbone: dict[str, Any]
    pretrain: dict[str, Any]
    many_ways: int
    cell_pools: int
    maml_step: float = 0.1
    validation_tasks: int = 200
    meta_batch: int = 4
    learning_rate: float = 0.001
    training_ways: int | None = None
    rotated_classes: bool = False

    def shaped(self, wide: bool) -> Work:
        """The work itself, or ``wide``: learned from tasks of many ways, one a step, at the learning rate
        that suits them."""
        if not wide:
            return self
        return replace(self, training_ways=self.many_ways, meta_batch=1, learning_rate=0.002)

    @property
    def images_per_step(self) -> int:
        """Of one meta-batch."""
        return self.meta_batch * (self.training_ways or self.ways) * (self.shots + self.queries)

    def settings(self) -> dict[str, dict[str, Any]]:
        """What all systems share, in the words of a configuration."""
        shape = {"ways": self.ways, "shots": self.shots}
        return {
            "data": {
                "name": self.dataset,
                "image_size": self.image_size,
                "rotated_classes": self.rotated_classes,
            },
            "episodes": shape
            | {"ways": self.training_ways or self.ways, "queries": self.queries, "augment": self.augment},
            "backbone": dict(self.backbone),
            "outer": {
                "meta_batch": self.meta_batch,
                "task_chunk": 1,
                "learning_rate": self.learning_rate,
                "warmup": 100,
                "precision": PRECISION,
                "penalty": 0.0,
            },
            "evaluation": {
                **shape,
                "queries": 15,
                "episodes": self.validation_tasks,
                "adapt": "always",
            },
        }

    def config(self) -> Config:
        return Config.from_dict(self.settings())

    def training(self, root: Path | None) -> Source:
        """The tasks that every system but for its own augmented views trains on."""
        return training_source(self.config(), root)

    def seed(self, split: str) -> int:
        """Of the tasks to score on."""
        return VALIDATION_SEED if split == "val" else 0

    def evaluation(self, split: str, root: Path | None) -> Source:
        """Tasks to score on."""
        return evaluation_source(self.config(), split, root, seed=self.seed(split))


# MAML's published steps are 0.1 (20-way Omniglot) and 0.01 (miniImageNet; Finn et al., ICML 2017), ANIL's the
# same (Raghu et al., ICLR 2020). cbfinn/maml takes them of a sum over the support divided by the shots, which
# is ways times the mean that a cross entropy is elsewhere: 20 × 0.1 and 5 × 0.01 of the mean.
WORKS = {
    work.name: work
    for work in (
        Work(
            "omniglot-20w1s",
            "omniglot",
            28,
            1,
            20,
            1,
            5,
            "affine",
            images=400_000,
            seconds=300.0,
            target=94.0,
            ladder=(75.0, 150.0, 300.0, 600.0, 1200.0),
            test_tasks=1000,
            backbone={"name": "conv4", "width": 64},
            pretrain={"batch": 128, "classifier": "cosine", "augment": "affine", "average": 0.999},
            many_ways=60,
            cell_pools=2,
            maml_step=20 * 0.1,
            rotated_classes=True,
        ),
        Work(
            "miniimagenet-5w5s",
            "miniimagenet",
            84,
            3,
            5,
            5,
            10,
            "crop-flip",
            images=120_000,
            seconds=600.0,
            target=62.0,
            ladder=(600.0, 900.0, 1350.0, 2000.0, 3000.0, 4500.0),
            test_tasks=400,
            backbone={"name": "conv4", "width": 64},
            pretrain={"batch": 128, "classifier": "cosine", "augment": "crop-flip", "average": 0.999},
            many_ways=20,
            cell_pools=3,
            maml_step=5 * 0.01,
        ),
    )
}
