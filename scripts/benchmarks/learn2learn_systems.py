"""learn2learn 0.2.0: MAML of either order, and ANIL, as its own example scripts use them."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from episodes import Episode

from . import plain
from .ours import STEP_SIZE
from .rounds import System
from .tasks import Setting, episode

MAML, FIRST_ORDER, ANIL = "learn2learn-maml", "learn2learn-maml-first-order", "learn2learn-anil"
NAMES = (MAML, FIRST_ORDER, ANIL)
NOTES = {
    MAML: "all weights are adapted (metafilm: FiLM alone), second order",
    FIRST_ORDER: "all weights are adapted (metafilm: FiLM alone), first order",
    ANIL: "the linear head alone is adapted, second order; support features are computed once",
}


def load() -> ModuleType:
    """The library, without what gym and old dependencies print on import.

    Raises:
        ImportError: it is not installed.
    """
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import learn2learn
        import learn2learn.data
    return learn2learn


class Adapting:
    """One learn2learn algorithm over the plain Conv-4."""

    def __init__(self, name: str, setting: Setting, precision: str, channels_last: bool) -> None:
        self.setting, self.precision, self.anil = setting, precision, name == ANIL
        self.network = plain.build(setting, channels_last=channels_last)
        adapted = self.network.head if self.anil else self.network
        self.maml = load().algorithms.MAML(adapted, lr=STEP_SIZE, first_order=name == FIRST_ORDER)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-3)

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with plain.autocast(self.precision):
            return F.cross_entropy(network(x), y)

    def body(self, x: Tensor) -> Tensor:
        """What is adapted sees these."""
        if not self.anil:
            return x
        with plain.autocast(self.precision):
            return self.network.features(x)

    def adapt(self, x: Tensor, y: Tensor) -> nn.Module:
        learner = self.maml.clone()
        inputs = self.body(x)
        for _ in range(self.setting.steps):
            learner.adapt(self.loss(learner, inputs, y))
        return learner

    def train(self, tasks: Episode) -> None:
        """One meta-batch, task by task, and the optimiser's step."""
        self.optimiser.zero_grad()
        for t in range(tasks.tasks):
            learner = self.adapt(tasks.support_images[t], tasks.support_labels[t])
            loss = self.loss(learner, self.body(tasks.query_images[t]), tasks.query_labels[t])
            (loss / tasks.tasks).backward()
        self.optimiser.step()

    def evaluate(self, tasks: Episode) -> None:
        """Adapt, predict, accuracy."""
        for t in range(tasks.tasks):
            learner = self.adapt(tasks.support_images[t], tasks.support_labels[t])
            with torch.no_grad(), plain.autocast(self.precision):
                predictions = learner(self.body(tasks.query_images[t])).argmax(-1)
            (predictions == tasks.query_labels[t]).double().mean()


def systems(
    setting: Setting, precision: str, work: str, tasks: int, names: tuple[str, ...] = NAMES
) -> list[System]:
    """``work``: train or evaluate. Each in both layouts, of which :func:`rounds.choose` keeps the faster."""
    return [
        System(
            name,
            lambda: None,
            tasks,
            precision,
            NOTES[name],
            tuple(
                System(name, _running(name, setting, precision, last, work, tasks), tasks, precision, layout)
                for last, layout in ((False, "contiguous"), (True, "channels_last"))
            ),
        )
        for name in names
    ]


def _running(
    name: str, setting: Setting, precision: str, channels_last: bool, work: str, tasks: int
) -> Callable[[], object]:
    adapting = Adapting(name, setting, precision, channels_last)
    batch = laid_out(episode(setting, tasks), channels_last)
    return lambda: getattr(adapting, work)(batch)


def laid_out(tasks: Episode, channels_last: bool) -> Episode:
    """Each task's images ``[n, C, H, W]`` in this layout."""
    if not channels_last:
        return tasks

    def turn(images: Tensor) -> Tensor:  # the strides of channels_last below a task axis
        return images.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)

    return Episode(
        turn(tasks.support_images),
        tasks.support_labels,
        turn(tasks.query_images),
        tasks.query_labels,
        tasks.ways,
        tasks.index,
    )
