"""The inner loop: a few gradient steps on a task's own loss, through its FiLM deviations alone.

Fast weights after MAML (Finn et al., ICML 2017, arXiv:1703.03400), restricted to context parameters after
CAVIA (Zintgraf et al., ICML 2019, arXiv:1810.03642), with learned step sizes after Meta-SGD
(arXiv:1707.09835) and MAML++ (arXiv:1810.09502).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from metafilm import film
from metafilm.engine.steps import OPTIMISERS, Adam
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict

watcher: ContextVar[Callable[[], object] | None] = ContextVar("watcher", default=None)
"""Called after each step of this thread, for a progress bar."""


class InnerLoop(nn.Module):
    """δ⁰ -> δᴷ.

    Args:
        sites: site name -> features C.
        steps: how many steps have step sizes of their own; later steps use the last one's.
        step_size: where every step size starts.
        learn: whether the outer loop learns them.
        granularity: one step size per ``site`` and kind (δγ, δβ), or per ``feature``.
        per_step: a step size for each step, or one for all.
        optimiser: ``sgd``, or ``adam`` (Kingma & Ba, ICLR 2015, arXiv:1412.6980), whose steps are as large at
            every site however their gradients differ; start its step sizes near 1e-3.
        proximal: λ of a term λ/2 ‖δ - δ⁰‖² that each task's loss gets, so that few images can't carry the
            deviations far (iMAML: Rajeswaran et al., NeurIPS 2019, arXiv:1909.04630).
        modulation: ``gain`` or ``shift``: only the gains move, or the biases; else both.
        weights: parameter name -> shape: move these in the deviations' place, each by a deviation of its own
            shape from the network's, as MAML does. Each has one step size.

    Raises:
        MetafilmError: no sites, an unknown granularity or optimiser, or a negative λ.
    """

    def __init__(
        self,
        sites: dict[str, int],
        steps: int,
        step_size: float = 0.1,
        *,
        learn: bool = True,
        granularity: str = "site",
        per_step: bool = True,
        optimiser: str = "sgd",
        proximal: float = 0.0,
        modulation: str = "film",
        weights: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if not sites:
            raise MetafilmError(
                "an inner loop needs at least one FiLM site to adapt; set film.sites, or inner.steps 0"
            )
        if granularity not in ("site", "feature"):
            raise MetafilmError(f"unknown step size granularity {granularity!r}; expected site or feature")
        if optimiser not in OPTIMISERS:
            raise MetafilmError(f"unknown inner optimiser {optimiser!r}; expected {' or '.join(OPTIMISERS)}")
        if not 0 < step_size < math.inf:
            raise MetafilmError(f"a step size of {step_size}; give a positive number, such as 0.0015")
        if not proximal >= 0:
            raise MetafilmError(f"the inner loop's proximal {proximal} must be at least 0")
        self.optimiser, self.proximal = optimiser, proximal
        self.arguments = {
            "sites": dict(sites),
            "steps": steps,
            "step_size": step_size,
            "learn": learn,
            "granularity": granularity,
            "per_step": per_step,
            "optimiser": optimiser,
            "proximal": proximal,
            "modulation": modulation,
            "weights": {name: list(shape) for name, shape in (weights or {}).items()},
        }
        self.weights = {name: tuple(shape) for name, shape in (weights or {}).items()}
        moving = {"gain": (film.GAIN,), "shift": (film.BIAS,)}.get(modulation, (film.GAIN, film.BIAS))
        shapes = {name: size for site, size in sites.items() for name in film.names(site)}
        self.names = [name for name in shapes if name.endswith(moving)]
        if self.weights:
            self.names, shapes = list(self.weights), dict.fromkeys(self.weights, 1)
        sizes = [shapes[name] for name in self.names]
        rows = max(steps, 1) if per_step else 1
        self.step_sizes = nn.ParameterList(
            nn.Parameter(
                torch.full((rows, size if granularity == "feature" else 1), float(step_size)),
                requires_grad=learn,
            )
            for size in sizes
        )

    def step_size(self, step: int) -> list[Tensor]:
        """Step sizes of one step, in the order of ``names``: ``[C]`` or ``[1]`` each."""
        return [size[min(step, size.shape[0] - 1)] for size in self.step_sizes]

    def forward(
        self,
        start: FilmDict,
        loss: Callable[[FilmDict], Tensor],
        steps: int,
        *,
        first_order: bool = False,
        meta_gradient: bool = True,
        factor: float = 1.0,
    ) -> Iterator[FilmDict]:
        """Yield δ¹ ... δᴷ.

        Args:
            start: δ⁰, ``[T, C]`` each, and ``[T, ...]`` of each of the ``weights``.
            loss: deviations -> one loss per task, ``[T]``.
            steps: K.
            first_order: treat inner gradients as constants in the outer gradient (FOMAML).
            meta_gradient: keep the graph for an outer gradient. Without it every step's graph is freed at
                once.
            factor: on all step sizes.
        """
        now = start
        move = Adam() if self.optimiser == "adam" else None
        for step in range(steps):
            with torch.enable_grad():
                if not meta_gradient:
                    now = {name: value.detach() for name, value in now.items()}
                # δ⁰ = 0 and detached deviations come without a graph; a result of the encoder has one already
                now = {
                    name: value if value.requires_grad else value.detach().requires_grad_()
                    for name, value in now.items()
                }
                values = [now[name] for name in self.names]
                # tasks don't share deviations, so the sum's gradient is each task's own; sites that the loss
                # does not come by (a classifier for training alone) have none, and stay where they are
                gradients = torch.autograd.grad(
                    loss(now).sum(),
                    values,
                    create_graph=meta_gradient and not first_order,
                    allow_unused=True,
                    materialize_grads=True,
                )
                if self.proximal:
                    first = [start[name] if meta_gradient else start[name].detach() for name in self.names]
                    gradients = [
                        gradient + self.proximal * (value - origin)
                        for gradient, value, origin in zip(gradients, values, first, strict=True)
                    ]
                if move is not None:
                    gradients = move(gradients)
                sizes = self.step_size(step)
                if factor != 1:
                    sizes = [factor * size for size in sizes]
                now = now | {
                    name: value - size * gradient
                    for name, value, size, gradient in zip(self.names, values, sizes, gradients, strict=True)
                }
            if (watch := watcher.get()) is not None:
                watch()
            yield now if meta_gradient else {name: value.detach() for name, value in now.items()}
