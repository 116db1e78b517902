"""Related methods as settings of metafilm's engine (docs/training.md has the table), and metafilm in full.

ANIL is not among them: its inner steps move the linear head alone, and those of the engine never move a head.
learn2learn's is in scripts/comparing/peers.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from metafilm.config import Config
from metafilm.config.sources import Source, plain_source
from metafilm.evaluation import evaluate
from metafilm.learner import build_learner, load_learner
from metafilm.storage.run import RunDirectory
from metafilm.training.outer_loop import OuterLoop
from metafilm.training.plain import Pretraining
from metafilm.training.run import train
from metafilm.training.tracking import Tracker

from . import plans
from .works import MAML_STEPS, Work


@dataclass(frozen=True)
class System:
    """A method.

    Attributes:
        settings: over those that all share, section by section.
        pretrained: share of the budget that goes into a classification stage.
        maml_step: whether its inner steps are as large as MAML's on the work.
        wide: whether it trains on tasks of many ways.
        cells: whether its head compares the cells of larger last maps, of a network with fewer poolings.
        mean: whether its features are the mean over those, of a network without its last pooling and ReLU.
        note: what a record says of it.
    """

    settings: dict[str, dict[str, Any]]
    note: str
    pretrained: float = 0.0
    maml_step: bool = False
    wide: bool = False
    cells: bool = False
    mean: bool = False


NO_ENCODER = {"encoder": {"enabled": False}}
ENCODER = {"decoder": "linear", "pooling": "mean-std", "scale": "feature", "detach": True}

SYSTEMS: dict[str, System] = {
    "protonet": System(
        NO_ENCODER | {"head": {"name": "prototype"}, "outer": {"average": 0.999}}, "plain prototypes, δ = 0"
    ),
    "cavia": System(
        NO_ENCODER
        | {"head": {"name": "linear"}, "outer": {"average": 0.999}}
        | {"inner": {"steps": 2, "step_size": 1.0, "learn_step_size": False}},
        "2 steps of 1 on the deviations from 0, linear head",
    ),
    "maml": System(
        NO_ENCODER
        | {"head": {"name": "linear"}, "outer": {"average": 0.999}}
        | {"inner": {"steps": MAML_STEPS, "adapts": "all", "learn_step_size": False}},
        f"{MAML_STEPS} steps on all weights but the linear head's, second order",
        maml_step=True,
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
            # a tenth of its 400 steps, which would take some hours of every evaluation
            "inner": {
                "evaluation_steps": 40,
                "optimiser": "adam",
                "step_size": 0.0035,
                "learn_step_size": False,
            },
            "outer": {"freeze": ["backbone"]},
            # once, at the end, and briefly: what learns is the head's scale alone, so that nothing is chosen
            "evaluation": {"every": 1_000_000, "episodes": 40},
        },
        "network of a classification stage, frozen; 40 Adam steps of 0.0035 on the deviations at test (FiT: "
        "400)",
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
    "metafilm-plain": System(
        NO_ENCODER | {"head": {"name": "cosine"}, "outer": {"plain": 64, "average": 0.999}},
        "classification stage, then tasks beside plain images; neither task encoder nor inner steps",
        0.6,
    ),
    "metafilm-mean": System(
        NO_ENCODER | {"head": {"name": "cosine"}, "outer": {"plain": 64, "average": 0.999}},
        "as metafilm-plain, with a network that lacks its last pooling and ReLU, and the mean over its maps",
        0.8,
        mean=True,
    ),
    "metafilm-pretrained": System(
        NO_ENCODER | {"head": {"name": "cosine"}, "outer": {"average": 0.999}},
        "the classification stage alone, of metafilm-mean's network; neither task encoder nor inner steps",
        1.0,
        mean=True,
    ),
    "metafilm-wide": System(
        NO_ENCODER | {"head": {"name": "cosine"}, "outer": {"average": 0.999}},
        "tasks of many ways; neither task encoder nor inner steps",
        wide=True,
    ),
    "metafilm-cells": System(
        NO_ENCODER | {"head": {"name": "reconstruction"}, "outer": {"average": 0.999}},
        "tasks of many ways; a query's cells rebuilt from each class's, fewer poolings; neither task encoder "
        "nor inner steps",
        wide=True,
        cells=True,
    ),
}


def settings(work: Work, system: System) -> dict[str, dict[str, Any]]:
    """Of the work, with the method's laid over them."""
    merged = work.shaped(system.wide).settings()
    for section, values in system.settings.items():
        merged[section] = merged.get(section, {}) | values
    inner = merged.setdefault("inner", {})
    if inner.get("steps") or inner.get("evaluation_steps"):
        inner.setdefault("view_augment", work.augment)
    if system.cells:
        merged["backbone"]["pools"] = work.cell_pools
    if system.mean:
        merged["backbone"] |= {"pools": 3, "pooling": "mean", "last_relu": False}
    if system.maml_step:
        inner["step_size"] = work.maml_step
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
    merged["evaluation"].setdefault("every", max(iterations // validations, 1))
    return Config.from_dict({"name": name, "threads": torch.get_num_threads(), **merged})


def images_per_step(work: Work, system: System) -> tuple[int, int]:
    """Of a step of the classification stage, and of the outer loop."""
    plain = settings(work, system)["outer"].get("plain", 0)
    return int(work.pretrain["batch"]), work.shaped(system.wide).images_per_step + plain


def seconds_per_step(work: Work, system: System, share: float, root: Path | None) -> tuple[float, float]:
    """Measured here and now, of the same two; of the stage only where it has a share of the budget."""
    settled = config(work, system, "probe", int(share > 0), 1000, 1)
    source = work.shaped(system.wide).training(root)
    learner = build_learner(settled, **source.build)  # type: ignore[arg-type]
    learner = learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = 0.0
    if share:
        longer = replace(settled, pretrain=replace(settled.pretrain, iterations=1000))
        stage = Pretraining(learner, longer, plain_source(longer, source.pools))
        before = plans.stage_seconds(stage)
        stage.finish()
    loop = OuterLoop(learner, settled, source)
    ahead = source.sampler.prefetch((loop.indices(i) for i in count()), loop.chunks.tasks)
    after = plans.mean_seconds(loop.step, ahead)
    loop.close()
    return before, after


def planned(work: Work, system: System, budget: str, amount: float, root: Path | None) -> tuple[int, int]:
    """Steps of the classification stage and of the outer loop that a budget allows: of ``images`` exactly, of
    time as far as a short measurement tells.
    """
    share = system.pretrained
    if budget == "images":
        costs: tuple[float, float] = images_per_step(work, system)
    else:
        costs = seconds_per_step(work, system, share, root)
    before = round(share * amount / costs[0]) if share else 0
    return before, max(round((1 - share) * amount / costs[1]), 1)


def trained(
    work: Work, name: str, budget: str, amount: float, folder: Path, root: Path | None, validations: int
) -> dict[str, Any]:
    """Train, or go on; what to report of the training.

    Raises:
        RunError: the folder has a training of other settings.
    """
    system = SYSTEMS[name]
    plan = plans.kept(folder, amount, lambda: planned(work, system, budget, amount, root))
    before, iterations = plan.steps
    settled = config(work, system, folder.name, before, iterations, validations)
    with RunDirectory.open(folder / "run", settled) as run:
        results = run.read_results()
        if results is None:
            with Tracker(run, settled) as tracker:
                results = train(settled, run, tracker, root)
        curve = curve_of(run.read_metrics())
    per_step = images_per_step(work, system)
    return {
        "iterations": [before, iterations],
        "images": before * per_step[0] + iterations * per_step[1],
        "training_seconds": curve[-1][0],
        "threads": results["threads"],
        "training_commit": plan.commit or results["environment"].get("commit"),
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
