"""What a run's weights score on validation classes: what chooses the best of them."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metafilm.config.classes import classes_of
from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.engine.distributed import Group
from metafilm.evaluation import centre, evaluate, far_enough
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.parts import settled
from metafilm.storage.models import save_model
from metafilm.storage.run import RunDirectory
from metafilm.training.outer_loop import OuterLoop

GAP_WARNING = 15.0  # percentage points


def validate(
    loop: OuterLoop,
    validation: Source,
    seen: Source,
    run: RunDirectory,
    build: dict[str, object],
    config: Config,
) -> dict[str, Any]:
    """Score the (averaged) weights on validation classes, and on training classes to see the gap; keep the
    best, of a mixture by the mean over its domains, as a learner that adapts as far as that is worth it
    (``evaluation.adapt``).
    """
    begin = time.perf_counter()
    with loop.averaged() as learner:
        centre(learner, seen.sampler)
        count = config.evaluation.episodes
        precision = config.evaluation.precision
        shared: dict[str, Any] = {"progress": False, "group": loop.group, "precision": precision}
        measure, each = learner.head.metric, []
        found = evaluate(learner, validation.sampler, count, per_stage=each, **shared)
        stages = found["stages"]
        stage = learner.stage
        chooses = config.evaluation.adapt == "auto" and len(stages) > 1
        if chooses and learner.gate is None:
            stage = far_enough(stages, each, measure)
        with _as_far_as(learner, stage):
            known = evaluate(learner, seen.sampler, max(count // 4, 2), by_stage=False, **shared)
        at = len(stages) - 1 if stage is None else stages.index(stage)
        value, known_value = _mean_over_domains(found, measure, at), _mean_over_domains(known, measure)
        better = loop.best is None or (value < loop.best if learner.regression else value > loop.best)
        if better:
            loop.best, loop.best_iteration = value, loop.iteration
            if loop.group.leads:
                here = classes_of(config, config.data.train_split, seen.pools)
                classes = tuple(dict.fromkeys((*here, *(learner.trained_on or ()))))
                kept = settled(config, stage) if chooses else config
                save_model(run.model_file, learner.state_dict(), kept, build, classes)
    gap, ci95 = known_value - value, _interval_over_domains(found, at)
    # beyond what the two intervals explain, so that few validation tasks give no false alarm
    if not learner.regression and gap - ci95 - _interval_over_domains(known) > GAP_WARNING:
        warnings.warn(
            f"iteration {loop.iteration}: training classes score {known_value:.1f} %, validation classes "
            f"{value:.1f} %: the learner overfits its training classes; more classes help most, for "
            "drawings --episodes.warp True and --episodes.augment affine",
            stacklevel=2,
        )
    return {
        f"validation_{measure}": value,
        "validation_ci95": ci95,
        f"validation_{measure}_by_step": found[f"{measure}_by_step"],
        "validation_stages": stages,
        "validation_stage": stages[at],
        f"training_classes_{measure}": known_value,
        "gap": gap,
        "validation_seconds": time.perf_counter() - begin,
        **_by_domain(found, measure, at),
    }


@contextmanager
def _as_far_as(learner: MetaFiLM, stage: str | None) -> Iterator[None]:
    before, learner.stage = learner.stage, stage
    try:
        yield
    finally:
        learner.stage = before


def plainly(
    learner: MetaFiLM, validation: Source, seen: Source, config: Config, group: Group
) -> dict[str, Any]:
    """Score the pre-trained network at δ = 0 on validation classes."""
    begin = time.perf_counter()
    centre(learner, seen.sampler)
    count = config.evaluation.episodes
    support = "own" if learner.encoder is None else "none"
    found = evaluate(
        learner,
        validation.sampler,
        count,
        steps=0,
        encoder_support=support,
        by_stage=False,
        progress=False,
        group=group,
        precision=config.evaluation.precision,
        gate=False,
    )
    measure = learner.head.metric
    return {
        f"validation_{measure}": _mean_over_domains(found, measure),
        "validation_ci95": _interval_over_domains(found),
        "validation_seconds": time.perf_counter() - begin,
    }


def _mean_over_domains(found: dict[str, Any], measure: str, at: int = -1) -> float:
    """The score at a stage; of a mixture the mean over its domains, each as heavy as the others however many
    of the tasks are of it."""
    scores = [domain[f"{measure}_by_step"][at] for domain in found.get("by_domain", {}).values()]
    return sum(scores) / len(scores) if scores else found[f"{measure}_by_step"][at]


def _interval_over_domains(found: dict[str, Any], at: int = -1) -> float:
    """The half width of :func:`_mean_over_domains`'s interval: the domains' tasks are independent. Where a
    domain has one task, which has none, that of all tasks together, which is wider."""
    widths = [domain["ci95_by_step"][at] for domain in found.get("by_domain", {}).values()]
    if not widths or not all(map(math.isfinite, widths)):
        return found["ci95_by_step"][at]
    return sum(width**2 for width in widths) ** 0.5 / len(widths)


def _by_domain(found: dict[str, Any], measure: str, at: int) -> dict[str, Any]:
    """Of a mixture, what to report of each domain by itself."""
    domains = found.get("by_domain", {})
    if not domains:
        return {}
    return {
        f"validation_{measure}_by_domain": {n: d[f"{measure}_by_step"][at] for n, d in domains.items()},
        "validation_ci95_by_domain": {n: d["ci95_by_step"][at] for n, d in domains.items()},
        f"validation_{measure}_by_step_by_domain": {n: d[f"{measure}_by_step"] for n, d in domains.items()},
    }
