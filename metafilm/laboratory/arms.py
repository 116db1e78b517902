"""The questions of the regularisation laboratory, and the trainings that answer them: one table.

An arm is a base configuration with a few settings changed. One that changes nothing is the base itself, which
is trained once for all questions. Settings are dotted names, as on the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import episodes
from metafilm import film
from metafilm.config import Config
from metafilm.learner.build import build_backbone

MOST_SITES = 6  # that are tried alone


@dataclass(frozen=True)
class Arm:
    """One line of a figure.

    ``support``: whose deviations are scored, as ``--encoder-support`` of ``metafilm eval`` has it.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    support: str = "own"


@dataclass(frozen=True)
class Question:
    """``title``: as a reader asks it. ``arms``: for a base configuration. ``of_encoder``: of settings that a
    configuration without a task encoder does not use."""

    title: str
    arms: Callable[[Config], list[Arm]]
    of_encoder: bool = False


def _of(*arms: Arm) -> Callable[[Config], list[Arm]]:
    return lambda base: list(arms)


def _values(setting: str, label: str, *values: Any) -> Callable[[Config], list[Arm]]:
    """An arm for each value of a setting."""
    return _of(*(Arm(f"{label}{value:g}", {setting: value}) for value in values))


def _sites(base: Config) -> list[Arm]:
    """All, the first half, the last half, each alone, and one with nothing after it."""
    network = build_backbone(replace(base, backbone=replace(base.backbone, weights=None)), (3, 64, 64))
    plain = dict(network.named_modules())
    names = list(film.sites(film.insert(network, "all")))
    half = max(len(names) // 2, 1)
    arms = [
        Arm("all", {"film.sites": "all"}),
        Arm("first half", {"film.sites": names[:half]}),
        Arm("last half", {"film.sites": names[-half:]}),
    ]
    step = max(len(names) // MOST_SITES, 1)
    arms += [Arm(f"only {name}", {"film.sites": [name]}) for name in names[::step]]
    if "features" in plain:
        arms.append(Arm("only the features", {"film.sites": ["features"]}))
    return arms


def _augmentation(base: Config) -> list[Arm]:
    """Of images, of tasks, and of both: for drawings, or for photographs."""
    drawn = all(name in episodes.DATASETS and episodes.dataset(name).ink for name in base.data.names)
    kinds = ("affine", "handwriting") if drawn else ("crop-flip", "crop-flip-jitter")
    arms = [("as they are", "none", False), *((kind, kind, False) for kind in kinds)]
    arms += [("warped tasks", "none", True), *((f"{kind}, warped tasks", kind, True) for kind in kinds)]
    return [Arm(name, {"episodes.augment": kind, "episodes.warp": warp}) for name, kind, warp in arms]


# How a learner adapts, said in full, whatever the base does.
STILL = {"encoder.enabled": False, "inner.steps": 0, "inner.evaluation_steps": None, "inner.gate": False}
STEPPING = {**STILL, "inner.steps": 3}
# AdamW takes learning rate × decay of a weight at each step. The laboratory's learning rates add up to 1, so
# that the usual 1e-4 shrinks a weight by 0.01 % in a whole training, and these by 10 %, 63 % and all of it.
STRONG_DECAYS = (0.1, 1.0, 10.0)

QUESTIONS: dict[str, Question] = {
    "parametrisation": Question(
        "Deviations from the identity, or raw gains and biases?",
        _of(
            Arm("deviations", {"film.modulation": "film"}),
            Arm("deviations, no penalty", {"film.modulation": "film", "outer.penalty": 0.0}),
            Arm("raw", {"film.modulation": "raw"}),
            Arm("raw, no penalty", {"film.modulation": "raw", "outer.penalty": 0.0}),
        ),
    ),
    "penalty": Question(
        "How strong a penalty on deviations?",
        _values("outer.penalty", "penalty ", 0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    ),
    "encoder-decay": Question(
        "How much weight decay of the task encoder?",
        _values("outer.encoder_weight_decay", "encoder decay ", 0.0, 1e-4, 1e-3, 1e-2, *STRONG_DECAYS),
        of_encoder=True,
    ),
    "backbone-decay": Question(
        "How much weight decay of the backbone?",
        _values("outer.weight_decay", "backbone decay ", 0.0, 1e-4, 5e-4, 1e-3, 1e-2, *STRONG_DECAYS),
    ),
    "decoder": Question(
        "How deep a decoder?",
        _of(
            Arm("linear", {"encoder.decoder": "linear"}),
            Arm("two layers", {"encoder.decoder": "mlp2"}),
            Arm("three layers", {"encoder.decoder": "mlp"}),
            Arm("GRU over sites", {"encoder.decoder": "gru"}),
        ),
        of_encoder=True,
    ),
    "sites": Question("Which sites?", _sites),
    "modulation": Question(
        "Gain, bias, both, or a bounded gain?",
        _of(
            Arm("γ and β", {"film.modulation": "film"}),
            Arm("γ alone", {"film.modulation": "gain"}),
            Arm("β alone", {"film.modulation": "shift"}),
            Arm("bounded γ, and β", {"film.modulation": "bounded"}),
            Arm("bounded γ alone", {"film.modulation": "gated"}),
        ),
    ),
    "weights": Question(
        "FiLM alone, or all weights?",
        _of(
            Arm("nothing adapts", STILL),
            Arm("FiLM, task encoder", {**STILL, "encoder.enabled": True}),
            Arm("FiLM, 3 steps", {**STEPPING, "inner.adapts": "film"}),
            Arm("all weights, 3 steps", {**STEPPING, "inner.adapts": "all"}),
        ),
    ),
    "deviations": Question(
        "Does each task need its own deviations?",
        _of(
            Arm("its own"),
            Arm("the mean over tasks", support="mean"),
            Arm("another task's", support="shuffled"),
        ),
        of_encoder=True,
    ),
    "auxiliary": Question(
        "With the auxiliary task of all training classes?",
        _values("outer.auxiliary", "auxiliary ", 0.0, 0.3, 1.0),
    ),
    "noise": Question(
        "With random gains and biases in training?",
        _values("outer.film_noise", "noise ", 0.0, 0.3, 1.0),
    ),
    "augmentation": Question("With images changed at random, or whole tasks?", _augmentation),
}
"""The questions by name: command line, tables, figures and docs read this mapping and no other."""
