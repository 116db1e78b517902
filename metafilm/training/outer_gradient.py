"""The outer gradient of a batch of tasks: the chain rule, cut at the deviations to hold little in memory."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from episodes import Episode
from metafilm.config.config import Config
from metafilm.errors import MetafilmError
from metafilm.film import GAIN, FilmDict, only
from metafilm.learner.learner import MetaFiLM
from metafilm.training.noise import FilmNoise


class Diverged(MetafilmError):
    """A loss or gradient became NaN or infinite."""


def penalty(deviations: FilmDict, raw: bool = False) -> Tensor | float:
    """Mean over tasks and features of δ², so its coefficient means the same for any meta-batch and width.

    Args:
        raw: of γ² = (1 + δγ)² in the place of δγ²: it pulls gains to 0, not to the identity.
    """
    if not deviations:
        return 0.0
    if raw:
        deviations = {name: value + name.endswith(GAIN) for name, value in deviations.items()}
    return torch.cat([value.flatten(1) for value in deviations.values()], 1).square().mean()


def sizes(deviations: FilmDict) -> dict[str, float]:
    """Root mean square of δ per parameter: what each site's gain and bias deviate by."""
    return {name: float(value.detach().square().mean().sqrt()) for name, value in deviations.items()}


def accumulate(
    learner: MetaFiLM,
    episode: Episode,
    config: Config,
    *,
    steps: int | None = None,
    share: float = 1.0,
    query_chunk: int | None = None,
    noise: FilmNoise | None = None,
) -> dict[str, Any]:
    """Add to the parameters' gradients that of ``share`` × the outer loss of T tasks.

    The outer loss is the mean over tasks of query loss + ``outer.penalty`` × mean δ² + ``outer.auxiliary`` ×
    cross entropy over all training classes + ``outer.domain`` × that over a mixture's domains. Support sets
    go through the inner loop all T together; then each ``query_chunk`` tasks' queries go forward and backward
    to the deviations, and their graph is freed; last the deviations' gradients go back through the inner loop
    and the task encoder. That is the chain rule, cut at the deviations: memory holds the queries of one part
    at a time.

    Args:
        steps: inner steps; None: the learner's.
        query_chunk: tasks whose queries go together; None: all T.
        noise: laid under the deviations in every pass; the penalty is of the deviations alone.

    Returns:
        What to report of the tasks, means over them: ``loss``, ``penalty``, ``accuracy``, ``sizes`` ...

    Raises:
        Diverged: a loss is not finite.
    """
    with _under(noise, learner, episode):
        found = learner.adaptation(episode, steps=steps)
    films = found.films[-1]
    # the auxiliary loss is of the encoder's unadapted features where it made some, else of the queries'
    own_features = found.features is not None
    # the cut: the queries' gradients gather here, and go on through the inner loop once, all together
    ends = {name: value.detach().requires_grad_(value.requires_grad) for name, value in films.items()}
    size = query_chunk or episode.tasks
    reports: list[tuple[float, dict[str, Any]]] = []
    for first in range(0, episode.tasks, size):
        whole = size >= episode.tasks
        part = episode if whole else episode.select(slice(first, first + size))
        # slices of the ends, not copies: each part's gradient adds to its own rows
        mine = ends if whole else {name: value[first : first + size] for name, value in ends.items()}
        with _under(noise, learner, part):
            auxiliary_weight = 0.0 if own_features else config.outer.auxiliary
            loss, report = _query_loss(learner, part, mine, auxiliary_weight, config.outer.label_smoothing)
        # the last part may be smaller, and each loss is a mean over its part
        weight = part.tasks / episode.tasks
        (finite(loss) * (weight * share)).backward()
        reports.append((weight, report))
    report = merge(reports)
    # of the deviations before the cut: its gradient takes the same way back as the queries'
    deviation = penalty(only(films), raw=config.film.modulation == "raw")
    rest: Tensor | float = config.outer.penalty * deviation
    report["penalty"] = float(deviation.detach()) if isinstance(deviation, Tensor) else 0.0
    report["sizes"] = sizes(only(films))
    if found.features is not None and config.outer.auxiliary:
        smoothing = config.outer.label_smoothing
        auxiliary = _auxiliary(learner, found.features, episode, episode.support_labels, smoothing)
        if auxiliary is not None:
            rest = rest + config.outer.auxiliary * auxiliary
            report["auxiliary"] = float(auxiliary.detach())
    domain = _domain(learner, found.code, episode) if config.outer.domain else None
    if domain is not None:
        rest = rest + config.outer.domain * domain
        report["domain"] = float(domain.detach())
    roots = [(value, ends[name].grad) for name, value in films.items() if ends[name].grad is not None]
    if isinstance(rest, Tensor) and rest.requires_grad:
        roots.append((finite(rest) * share, None))
    if roots:
        # one call for all roots: the inner loop's graph is walked once, then freed
        torch.autograd.backward([root for root, _ in roots], [gradient for _, gradient in roots])
    return report


def _under(noise: FilmNoise | None, learner: MetaFiLM, episode: Episode) -> AbstractContextManager[None]:
    return nullcontext() if noise is None else noise.under(learner, episode)


def _query_loss(
    learner: MetaFiLM, episode: Episode, films: FilmDict, auxiliary_weight: float, smoothing: float
) -> tuple[Tensor, dict[str, Any]]:
    """The tasks' mean query loss under these deviations, and the auxiliary loss of the same features."""
    prediction, features = next(learner.predictions(episode, [films]))
    loss = smoothed_loss(learner, prediction, episode.query_labels, smoothing)
    report: dict[str, Any] = {"loss": float(loss.detach())}
    if not learner.regression:
        report["accuracy"] = float(learner.head.measure(prediction.detach(), episode.query_labels).mean())
    if auxiliary_weight:
        labels = torch.cat((episode.support_labels, episode.query_labels), 1)
        auxiliary = _auxiliary(learner, features, episode, labels, smoothing)
        if auxiliary is not None:
            loss = loss + auxiliary_weight * auxiliary
            report["auxiliary"] = float(auxiliary.detach())
    return loss, report


def smoothed_loss(learner: MetaFiLM, predictions: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """The head's loss, a mean over the tasks ``[T, Q, ways]``; with ``smoothing`` the cross entropy with
    targets of which that share goes evenly to all classes (Szegedy et al., CVPR 2016, arXiv:1512.00567)."""
    if not smoothing:
        return learner.head.loss(predictions, labels).mean()
    return F.cross_entropy(predictions.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)


def _auxiliary(
    learner: MetaFiLM, features: Tensor, episode: Episode, labels: Tensor, smoothing: float
) -> Tensor | None:
    """:func:`auxiliary_loss`, where learner and episode have what it takes."""
    if learner.auxiliary is None or episode.class_ids is None:
        return None
    return auxiliary_loss(learner.auxiliary, features, episode.class_ids, labels, smoothing)


def _domain(learner: MetaFiLM, code: Tensor | None, episode: Episode) -> Tensor | None:
    """Cross entropy of the task encoder's guess which domain each task is of, where it makes one."""
    guess = getattr(learner.encoder, "domain", None)
    if code is None or guess is None or episode.pool_ids is None:
        return None
    return F.cross_entropy(guess(code), episode.pool_ids)


def auxiliary_loss(
    classifier: nn.Module, features: Tensor, class_ids: Tensor, labels: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Cross entropy over all training classes.

    Args:
        classifier: features -> logits of all training classes.
        features: ``[T, n, D]``.
        class_ids: ``[T, ways]``, the training class of each label.
        labels: ``[T, m]``, of which the last n are the features'.
        smoothing: share of each target that goes evenly to all classes.
    """
    logits = classifier(features).flatten(0, 1)
    classes = class_ids.gather(1, labels[:, -features.shape[1] :]).flatten()
    return F.cross_entropy(logits, classes, label_smoothing=smoothing)


def finite(loss: Tensor) -> Tensor:
    """The loss. Raises Diverged unless it is finite."""
    if not math.isfinite(float(loss.detach())):
        raise Diverged(f"the outer loss is {float(loss.detach())}")
    return loss


def merge(reports: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """Weighted means of the chunks' reports; of ``sizes`` the root of the mean square, which does not depend
    on how the tasks were cut into chunks."""
    merged: dict[str, Any] = {}
    squares: dict[str, float] = {}
    for share, report in reports:
        for key, value in report.items():
            if key == "sizes":
                for name, size in value.items():
                    squares[name] = squares.get(name, 0.0) + share * size**2
            else:
                merged[key] = merged.get(key, 0.0) + share * value
    if any("sizes" in report for _, report in reports):
        merged["sizes"] = {name: math.sqrt(square) for name, square in squares.items()}
    return merged
