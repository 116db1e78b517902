"""Related methods as settings of metafilm's engine (docs/training.md has the table), and metafilm in full."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metafilm.config import Config
from metafilm.config.sources import Source, plain_source
from metafilm.evaluation import evaluate
from metafilm.learner import build_learner, load_learner
from metafilm.storage.atomic import atomic_write
from metafilm.storage.run import RunDirectory
from metafilm.training.outer_loop import OuterLoop
from metafilm.training.plain import Pretraining
from metafilm.training.run import train
from metafilm.training.tracking import Tracker

from .works import Work

PROBE = 10  # steps that a rate is measured on
LINEAR_STEP = 0.1


@dataclass(frozen=True)
class System:
    """A method.

    Attributes:
        settings: over those that all share, section by section.
        pretrained: share of the budget that goes into a classification stage.
        note: what a record says of it.
    """

    settings: dict[str, dict[str, Any]]
    note: str
    pretrained: float = 0.0


NO_ENCODER = {"encoder": {"enabled": False}}
ENCODER = {"decoder": "linear", "pooling": "mean-std", "scale": "feature", "detach": True}

SYSTEMS: dict[str, System] = {
    "protonet": System(
        NO_ENCODER | {"head": {"name": "prototype"}, "outer": {"average": 0.999}}, "plain prototypes, δ = 0"
    ),
    "cavia": System(
        NO_ENCODER
        | {"head": {"name": "linear"}, "inner": {"steps": 2, "step_size": LINEAR_STEP, "views": 0}}
        | {"outer": {"average": 0.999}},
        "2 steps on the deviations from 0, linear head",
    ),
    "tadam": System(
        {
            "encoder": {"decoder": "mlp", "scale": "site", "pooling": "mean"},
            "head": {"name": "prototype"},
            "outer": {"auxiliary": 1.0, "penalty": 0.01, "average": 0.999},
        },
        "task encoder, auxiliary task, scaled prototypes",
    ),
    "cnaps": System(
        {"encoder": ENCODER, "head": {"name": "cosine"}, "outer": {"freeze": ["backbone"], "average": 0.999}},
        "network of a classification stage, frozen; task encoder",
        0.6,
    ),
    "fit": System(
        NO_ENCODER
        | {
            "head": {"name": "cosine"},
            "inner": {
                "evaluation_steps": 20,
                "optimiser": "adam",
                "step_size": 0.0015,
                "learn_step_size": False,
            },
            "outer": {"freeze": ["backbone"]},
        },
        "network of a classification stage, frozen; 20 Adam steps on the deviations at test",
        0.98,
    ),
    "metafilm": System(
        {
            "encoder": ENCODER,
            "head": {"name": "cosine"},
            "inner": {"steps": 1, "first_order": True},
            "outer": {"penalty": 1.0, "plain": 64, "average": 0.999},
            "evaluation": {"adapt": "auto"},
        },
        "classification stage, then tasks beside plain images; task encoder and 1 inner step, as far as "
        "validation finds them worth it",
        0.6,
    ),
}


def settings(work: Work, system: System) -> dict[str, dict[str, Any]]:
    """Of the work, with the method's laid over them."""
    merged = work.settings()
    for section, values in system.settings.items():
        merged[section] = merged.get(section, {}) | values
    if merged.get("inner", {}).get("steps"):
        merged["inner"].setdefault("view_augment", work.augment)
    if "plain" in merged["outer"] or system.pretrained:
        merged["pretrain"] = dict(work.pretrain)
    return merged


def config(
    work: Work, system: System, name: str, pretraining: int, iterations: int, validations: int
) -> Config:
    """So many steps of each stage."""
    merged = settings(work, system)
    merged.setdefault("pretrain", {})["iterations"] = pretraining
    merged["outer"] |= {"iterations": iterations, "warmup": min(100, max(iterations // 10, 1))}
    merged["evaluation"]["every"] = max(iterations // validations, 1)
    return Config.from_dict({"name": name, "threads": torch.get_num_threads(), **merged})


def images_per_step(work: Work, system: System) -> tuple[int, int]:
    """Of a step of the classification stage, and of the outer loop."""
    plain = settings(work, system)["outer"].get("plain", 0)
    return int(work.pretrain["batch"]), work.images_per_step + plain


def seconds_per_step(work: Work, system: System, root: Path | None) -> tuple[float, float]:
    """Measured here and now, of the same two."""
    settled = config(work, system, "probe", int(bool(system.pretrained)), 1000, 1)
    source = work.training(root)
    learner = build_learner(settled, **source.build)  # type: ignore[arg-type]
    learner = learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = 0.0
    if system.pretrained:
        longer = replace(settled, pretrain=replace(settled.pretrain, iterations=1000))
        stage = Pretraining(learner, longer, plain_source(longer, source.pools))
        before = mean_seconds(lambda i: stage.step(stage.source.sampler.batch([i])))
        stage.finish()
    loop = OuterLoop(learner, settled, source)
    sampler = source.sampler
    after = mean_seconds(lambda i: loop.step(list(sampler.batches(loop.indices(i), 1))))
    loop.close()
    return before, after


def mean_seconds(step: Callable[[int], object]) -> float:
    """Of a step, which takes its number."""
    for i in range(2):  # the first are slower
        step(i)
    begin = time.perf_counter()
    for i in range(2, 2 + PROBE):
        step(i)
    return (time.perf_counter() - begin) / PROBE


def planned(work: Work, system: System, budget: str, amount: float, root: Path | None) -> tuple[int, int]:
    """Steps of the classification stage and of the outer loop that a budget allows: of ``images`` exactly, of
    time as far as a short measurement tells."""
    costs = images_per_step(work, system) if budget == "images" else seconds_per_step(work, system, root)
    share = system.pretrained
    before = round(share * amount / costs[0]) if share else 0
    return before, max(round((1 - share) * amount / costs[1]), 1)


def trained(
    work: Work, name: str, budget: str, amount: float, folder: Path, root: Path | None, validations: int
) -> dict[str, Any]:
    """Train, or go on; what to report of the training.

    The plan is kept in the folder, since another measurement would give another.
    """
    system = SYSTEMS[name]
    plan = folder / "plan.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not plan.is_file():
        steps = planned(work, system, budget, amount, root)
        atomic_write(plan, json.dumps(steps).encode())
    before, iterations = json.loads(plan.read_text())
    settled = config(work, system, folder.name, before, iterations, validations)
    directory = RunDirectory(folder / "run")
    results = directory.read_results()
    if results is None:
        with RunDirectory.open(folder / "run", settled) as run, Tracker(run, settled) as tracker:
            results = train(settled, run, tracker, root)
    curve = curve_of(RunDirectory(folder / "run").read_metrics())
    per_step = images_per_step(work, system)
    return {
        "iterations": [before, iterations],
        "images": before * per_step[0] + iterations * per_step[1],
        "training_seconds": curve[-1][0],
        "threads": results["threads"],
        "curve": curve,
        "protocol": "inductive",
        "note": system.note,
    }


def curve_of(records: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """(seconds of training without validations, validation accuracy) at each validation."""
    found, spent = [], 0.0
    for record in records:
        if "validation_accuracy" in record:
            spent += record["validation_seconds"]
            found.append((record["seconds"] - spent, record["validation_accuracy"]))
    return found


def scores(folder: Path, source: Source, tasks: int) -> list[float]:
    """Of the best weights, on each task."""
    each: list[float] = []
    evaluate(load_learner(folder / "run"), source.sampler, tasks, by_stage=False, per_task=each)
    return each
