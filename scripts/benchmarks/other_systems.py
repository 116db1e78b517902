"""parallel-metalearn 0.5.6 (torch.func and vmap), and CAVIA's method in a plain loop over tasks."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import ours, plain
from .learn2learn_systems import laid_out
from .rounds import System
from .tasks import Setting, episode

PARALLEL, LOOP = "parallel-metalearn", "per-task-loop"


class _Ignoring(nn.Module):
    """A module that may be called with the flags which parallel-metalearn passes along."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        return self.module(x)


def parallel_maml(setting: Setting, backend: str, chunk: int, channels_last: bool = False) -> Any:
    """Its MAML over the plain Conv-4 with its own batch norm, which `torch.func` can trace.

    (`ModelTranslator`, which should put that in, fails in 0.5.6: it passes `learn_gamma` to a class that has
    no such argument.)

    Raises:
        ImportError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from metalearn.algorithms import MAML
        from metalearn.inner_optimizers import InnerSGD
        from metalearn.loss import CategoricalAccuracy, CrossEntropy
        from metalearn.model_wrappers import MAML_Model
        from metalearn.nn_models.basic_layers.BatchNormalization import BatchNorm
    network = plain.build(setting, channels_last=channels_last)
    for block in network.blocks:
        block.norm = BatchNorm(setting.width, track_running_stats=False)
    model = MAML_Model(_Ignoring(network.blocks), _Ignoring(network.head))
    inner = InnerSGD(model.get_fast_weights(), inner_lr=ours.STEP_SIZE, max_inner_steps=setting.steps)
    return MAML(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
        inner_optimizer=inner,
        support_loss_fn=CrossEntropy(CategoricalAccuracy()),
        inner_steps=setting.steps,
        chunk_size=chunk,
        backend=backend,
        device=torch.device("cpu"),
    )


def parallel(
    setting: Setting,
    precision: str,
    work: str,
    tasks: int,
    backends: tuple[str, ...] = ("vmap", "sequential"),
) -> System:
    """``work``: train or evaluate; by vmap over all the tasks, or task by task in either layout."""

    def running(backend: str, channels_last: bool) -> Callable[[], object]:
        maml = parallel_maml(setting, backend, tasks, channels_last)
        batch = laid_out(episode(setting, tasks), channels_last)
        labels = {"labels": batch.support_labels}, {"labels": batch.query_labels}
        stream = itertools.repeat((batch.support_images, labels[0], batch.query_images, labels[1]))

        def run() -> None:
            with plain.autocast(precision):
                maml.step(stream, training=work == "train")

        return run

    ways = (
        ("vmap", False, f"vmap over {tasks}"),
        ("sequential", False, "task by task, contiguous"),
        ("sequential", True, "task by task, channels_last"),
    )
    return System(
        PARALLEL,
        lambda: None,
        tasks,
        precision,
        "all weights are adapted (metafilm: FiLM alone), second order; one learned inner step size",
        tuple(
            System(PARALLEL, running(backend, last), tasks, precision, label)
            for backend, last, label in ways
            if backend in backends and (backend != "vmap" or tasks > 1)
        ),
    )


def loop(setting: Setting, precision: str, work: str, tasks: int) -> System:
    """``work``: train or evaluate. Contiguous maps, ordinary autograd, one task at a time."""
    network = plain.build(setting)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    batch = episode(setting, tasks)

    def train() -> None:
        optimiser.zero_grad()
        plain.outer_gradient(network, batch, setting.steps, ours.STEP_SIZE, precision)
        optimiser.step()

    def evaluate() -> None:
        for t in range(tasks):
            x, y = batch.support_images[t], batch.support_labels[t]
            film = plain.film_adapt(
                network, x, y, setting.steps, ours.STEP_SIZE, precision=precision, second_order=False
            )
            with torch.no_grad(), plain.autocast(precision):
                predictions = plain.film_forward(network, film, batch.query_images[t]).argmax(-1)
            (predictions == batch.query_labels[t]).double().mean()

    return System(
        LOOP,
        train if work == "train" else evaluate,
        tasks,
        precision,
        "FiLM alone is adapted, contiguous maps, one task at a time: metafilm's method written plainly",
    )
