"""The outer loss as one compiled function: slow to start, then the compiler's fused kernels.

``torch.compile`` refuses to differentiate twice through what it compiled. Here the inner gradient is traced
inside the compiled function, by ``torch.func.grad``, so that one level of backward is left: the outer one,
second order included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from episodes import Episode
from metafilm import film
from metafilm.config.config import Config
from metafilm.errors import MetafilmError, first_line
from metafilm.film import FilmDict
from metafilm.learner.learner import MetaFiLM
from metafilm.training.outer_gradient import auxiliary_loss, finite, merge, penalty, sizes, smoothed_loss


class CompiledGradient:
    """:func:`metafilm.training.outer_gradient.accumulate`, task by task through a compiled function.

    Each shape of episodes and number of steps is compiled when it first comes, which takes a minute or two;
    PyTorch keeps the result in its cache for later runs.

    Args:
        learner, config: as for ``accumulate``.
        backend: of ``torch.compile``.
    """

    def __init__(self, learner: MetaFiLM, config: Config, backend: str = "inductor") -> None:
        self.learner, self.config = learner, config
        self._reads_support = learner.reads_support
        self._loss = torch.compile(self._plain_loss, dynamic=False, fullgraph=True, backend=backend)

    def __call__(self, episode: Episode, *, steps: int | None = None, share: float = 1.0) -> dict[str, Any]:
        """Add to the gradients that of ``share`` × the mean outer loss of T tasks; returns what to report.

        Raises:
            Diverged: a loss is not finite.
            MetafilmError: nothing here can compile.
        """
        steps = self.learner.steps if steps is None else steps
        reports = []
        for task in range(episode.tasks):
            one = episode.select(task)
            views = self.learner.views_of(one) if steps else None
            try:
                loss, parts, prediction, films = self._loss(
                    self.learner.prepare(one.support_images),
                    one.support_labels,
                    None if views is None else self.learner.prepare(views),
                    self.learner.prepare(one.query_images),
                    one.query_labels,
                    one.class_ids,
                    one.ways,
                    steps,
                )
            except torch._dynamo.exc.TorchDynamoException as error:  # type: ignore[attr-defined]
                raise MetafilmError(
                    f"--outer.compile did not work here ({first_line(error)}); it needs a C++ compiler such "
                    "as g++ or clang; train without it"
                ) from error
            (finite(loss) * (share / episode.tasks)).backward()
            report: dict[str, Any] = {name: float(value.detach()) for name, value in parts.items()}
            if not self.learner.regression:
                report["accuracy"] = float(self.learner.head.measure(prediction.detach(), one.query_labels))
            report["sizes"] = sizes({name: value.unsqueeze(0) for name, value in films.items()})
            reports.append((1 / episode.tasks, report))
        return merge(reports)

    def _plain_loss(
        self,
        support: Tensor,
        labels: Tensor,
        views: Tensor | None,
        query: Tensor,
        query_labels: Tensor,
        class_ids: Tensor | None,
        ways: int,
        steps: int,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, FilmDict]:
        """The outer loss of one task, in PyTorch's own operations alone."""
        learner, outer = self.learner, self.config.outer
        own = None
        films = {name: torch.zeros_like(value) for name, value in film.parameters(learner.backbone).items()}
        if learner.encoder is not None:
            if learner.regression or not learner.encoder.reads_support:
                films = _single(learner.encode(support.unsqueeze(0), labels, ways))
            else:
                own = learner.features(support.detach(), {}, 1)
                own = own.detach() if learner.detach_encoder else own
                films = _single(learner.encode(own, labels, ways))
        shots = support.shape[0]
        held_out = learner.head.held_out_views and views is not None

        def inner(films: FilmDict) -> Tensor:
            x = torch.cat((support, views)) if held_out and views is not None else support
            features = learner.features(x, films, 1, support=shots)
            value = learner.head.inner_loss(
                features[:, :shots], labels, ways, features[:, shots:] if held_out else None
            )
            return value.sum()

        for step in range(steps):
            gradients = grad(inner)(films)
            if learner.first_order:
                gradients = {name: value.detach() for name, value in gradients.items()}
            assert learner.inner is not None
            step_sizes = dict(zip(learner.inner.names, learner.inner.step_size(step), strict=True))
            films = {name: value - step_sizes[name] * gradients[name] for name, value in films.items()}
        x, first = (torch.cat((support, query)), shots) if self._reads_support else (query, 0)
        prediction, features = learner.predict_prepared(x, films, labels, ways, first)
        smoothing = outer.label_smoothing
        parts = {"loss": smoothed_loss(learner, prediction, query_labels, smoothing)}
        loss = parts["loss"]
        if films:
            parts["penalty"] = torch.as_tensor(penalty({n: v.unsqueeze(0) for n, v in films.items()}))
            loss = loss + outer.penalty * parts["penalty"]
        if learner.auxiliary is not None and class_ids is not None:
            known = torch.cat((labels, query_labels), 1)
            if own is not None and not learner.detach_encoder:
                features, known = own, labels
            parts["auxiliary"] = auxiliary_loss(learner.auxiliary, features, class_ids, known, smoothing)
            loss = loss + outer.auxiliary * parts["auxiliary"]
        return loss, parts, prediction, films


def _single(films: FilmDict) -> FilmDict:
    """``[1, C]`` -> ``[C]``."""
    return {name: value[0] for name, value in films.items()}
