"""learn2learn's MAML, ANIL and prototypes on metafilm's tasks, as its own examples have them
(learnables/learn2learn, examples/vision)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from episodes import Episode
from scripts.benchmarks import plain
from scripts.benchmarks.learn2learn_systems import load
from scripts.benchmarks.tasks import Setting

from .works import MAML_STEPS, PRECISION, Work


class Peer(Protocol):
    """A system of learn2learn's: its network, how it judges one task, and the layout of images in which that
    is fastest here."""

    network: nn.Module
    channels_last: bool

    def logits(self, task: Episode, training: bool) -> Tensor:
        """Of the queries of one task ``[Q, ways]``."""
        ...


class Adapting:
    """MAML, or ANIL, which adapts the linear head alone; second order. Batch norm takes the statistics of the
    images at hand, in evaluation too, as in learn2learn's examples: queries see each other."""

    def __init__(self, work: Work, anil: bool, steps: int, step_size: float) -> None:
        self.steps, self.anil = steps, anil
        self.channels_last = anil  # second-order MAML takes 1.6 times as long with it (results/benchmark)
        self.network = plain.build(setting(work), channels_last=self.channels_last)
        adapted = self.network.head if anil else self.network
        self.maml = load().algorithms.MAML(adapted, lr=step_size)

    def logits(self, task: Episode, training: bool) -> Tensor:
        with torch.enable_grad(), plain.autocast(precision(training)):
            learner = self.maml.clone(first_order=not training)
            support, query = self._body(task.support_images[0]), self._body(task.query_images[0])
            for _ in range(self.steps):
                learner.adapt(F.cross_entropy(learner(support), task.support_labels[0]))
            return learner(query).float()

    def _body(self, x: Tensor) -> Tensor:
        return self.network.features(x) if self.anil else x


class Prototypes:
    """learn2learn.nn.PrototypicalClassifier over the network; running statistics in evaluation."""

    channels_last = True

    def __init__(self, work: Work) -> None:
        self.network = plain.build(setting(work), channels_last=self.channels_last, track=True)
        self.network.head = nn.Identity()
        self.classifier = load().nn.PrototypicalClassifier()

    def logits(self, task: Episode, training: bool) -> Tensor:
        self.network.train(training)
        images = torch.cat((task.support_images[0], task.query_images[0]))
        with torch.set_grad_enabled(training):
            with plain.autocast(precision(training)):
                features = self.network.features(images).float()
            shots = task.support_labels.shape[1]
            self.classifier.fit_(features[:shots], task.support_labels[0])
            return self.classifier(features[shots:])


def precision(training: bool) -> str:
    """As metafilm's: the works' in training, float32 in evaluation."""
    return PRECISION if training else "float32"


def setting(work: Work) -> Setting:
    """As the benchmark's plain network wants it."""
    size = work.image_size
    return Setting(size, work.channels, work.ways, work.shots, work.queries, width=work.backbone["width"])


@dataclass(frozen=True)
class System:
    """``wide``: whether it trains on tasks of many ways."""

    make: Callable[[Work], Peer]
    protocol: str
    note: str
    wide: bool = False


SYSTEMS: dict[str, System] = {
    "learn2learn-protonet": System(Prototypes, "inductive", "squared Euclidean distances"),
    "learn2learn-protonet-wide": System(
        Prototypes, "inductive", "squared Euclidean distances; tasks of many ways", wide=True
    ),
    "learn2learn-maml": System(
        lambda work: Adapting(work, False, MAML_STEPS, work.maml_step),
        "transductive",
        "5 steps on all weights, second order; batch statistics",
    ),
    "learn2learn-anil": System(
        lambda work: Adapting(work, True, MAML_STEPS, work.maml_step),
        "transductive",
        "5 steps on the linear head, second order; batch statistics",
    ),
}
