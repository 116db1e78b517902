"""A learner in a file that says how to build it again: by its configuration, or part by part.

Part by part means the class and the arguments of backbone, head, task encoder and inner loop, the mode of the
backbone's norms, and which parameters are frozen. Only classes of metafilm's own are named in a file; for a
backbone of somebody else's the reader brings the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from metafilm import film, norms
from metafilm.backbones import BACKBONES, Pretrained
from metafilm.conditioning import ENCODERS
from metafilm.config.config import Config
from metafilm.errors import CheckpointError, MetafilmError
from metafilm.heads import HEADS, FeatureTransform
from metafilm.learner.gate import Gate
from metafilm.learner.inner_loop import InnerLoop
from metafilm.storage import tensorfile
from metafilm.storage.calibration import KEY
from metafilm.storage.models import FORMAT, save_model

VERSION = "2"
OWN: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (*BACKBONES.values(), Pretrained, *HEADS.values(), *ENCODERS.values(), InnerLoop)
}
PLAIN = ("steps", "evaluation_steps", "first_order", "views", "view_augment", "detach_encoder")

ADAPT = {"never": "identity", "encoder": "encoder"}
"""By ``evaluation.adapt``, the stage at which adaptation ends; it goes all the way under any other name."""


def settled(config: Config, stage: str | None) -> Config:
    """The settings of a learner of which it is known how far it adapts."""
    adapt = next((name for name, ends in ADAPT.items() if ends == stage), "always")
    return replace(config, evaluation=replace(config.evaluation, adapt=adapt))


def as_set(learner: Any) -> Config:
    """The learner's settings, with what somebody has set on the learner itself since it was built (``steps``
    of its training apart, by which its step sizes are shaped; a gate's own settings are no settings)."""
    config: Config = learner.config
    inner, evaluation = config.inner, config.evaluation
    if learner.stage != ADAPT.get(evaluation.adapt):
        evaluation = settled(config, learner.stage).evaluation
    steps = inner.steps if inner.evaluation_steps is None else inner.evaluation_steps
    if learner.evaluation_steps != steps:
        inner = replace(inner, evaluation_steps=learner.evaluation_steps)
    given = {name: getattr(learner, name) for name in ("views", "view_augment", "batch")}
    judged = {name: getattr(learner, name) for name in ("copies", "copy_augment", "query_copies")}
    inner = replace(inner, gate=learner.gate is not None, **given)
    return replace(config, inner=inner, evaluation=replace(evaluation, **judged))


def save(path: str | Path, learner: Any) -> None:
    """Write a :class:`metafilm.MetaFiLM`. See :meth:`metafilm.MetaFiLM.save`."""
    mean, std = learner.mean.flatten().tolist(), learner.std.flatten().tolist()
    auxiliary = 0 if learner.auxiliary is None else learner.auxiliary.out_features
    calibration = learner.calibrated()
    if learner.config is not None:
        build = {
            "image_shape": list(learner.image_shape),
            "train_classes": auxiliary,
            "mean": mean,
            "std": std,
        }
        if learner.gate not in (None, Gate()):
            build["gate"] = learner.gate.to_dict()
        save_model(path, learner.state_dict(), as_set(learner), build, learner.trained_on, calibration)
        return
    described: dict[str, Any] = {
        "backbone": _described(learner.backbone),
        "origin": getattr(learner.backbone, "origin", None),
        "norm": _norm(learner.backbone),
        "sites": list(film.sites(learner.backbone)),
        "frozen": _frozen(learner),
        "image_shape": list(learner.image_shape),
        "auxiliary_classes": auxiliary,
        **{name: getattr(learner, name) for name in PLAIN},
    }
    if learner.head.transform is not None:
        described["transform"] = learner.head.transform.arguments
    if learner.batch is not None:
        described["batch"] = learner.batch
    if learner.copies or learner.query_copies:
        described |= {"copies": learner.copies, "copy_augment": learner.copy_augment}
    if learner.query_copies:
        described["query_copies"] = learner.query_copies
    if learner.gate is not None:
        described["gate"] = learner.gate.to_dict()
    if learner.stage is not None:
        described["stage"] = learner.stage
    for name in ("head", "encoder", "inner"):
        part = getattr(learner, name)
        described[name] = None if part is None else _described(part)
        if part is not None and described[name]["arguments"] is None:
            raise MetafilmError(
                f"the {name} is a {type(part).__name__}, which a file can't rebuild; save the learner's "
                "state_dict() and build it yourself"
            )
    metadata = {"format": FORMAT, "version": VERSION, "parts": json.dumps(described)}
    if calibration is not None:
        metadata[KEY] = calibration.to_json()
    tensorfile.write(path, learner.state_dict(), metadata)


def _described(part: nn.Module) -> dict[str, Any]:
    """Class and arguments; no arguments for somebody else's."""
    return {"class": type(part).__name__, "arguments": part.arguments if is_own(part) else None}


def is_own(part: nn.Module) -> bool:
    """Whether it is of a class of metafilm's, which a file may name."""
    return OWN.get(type(part).__name__) is type(part)


def _norm(backbone: nn.Module) -> str | None:
    """The mode of metafilm's norms in it; None where it has none.

    Raises:
        MetafilmError: a network of another library that was converted in part, or to several modes.
    """
    kinds = {type(module) for module in backbone.modules()}
    if norms.Norm not in kinds:
        return None
    if isinstance(backbone, Pretrained) and nn.BatchNorm2d in kinds:
        raise MetafilmError(
            "some of the backbone's norms are metafilm's and some PyTorch's, which a file can't rebuild; "
            "convert all (metafilm.norms.convert), or save the learner's state_dict() and build it yourself"
        )
    return norms.mode_of(backbone)


def _frozen(learner: Any) -> list[str]:
    """The names of the parameters that the outer loop leaves alone, but for the deviations, which it always
    does."""
    own = {f"backbone.{name}" for name in film.widths(learner.backbone)}
    with film.exclusive(learner.backbone):  # where another thread's pass has put others in their place
        found = [name for name, value in learner.named_parameters() if not value.requires_grad]
    return [name for name in found if name not in own]


def freeze(learner: nn.Module, metadata: Mapping[str, str], path: str | Path) -> None:
    """Freeze what was frozen when a file was written part by part; one of an older version doesn't say.

    Raises:
        CheckpointError: damaged metadata.
    """
    parameters = dict(learner.named_parameters())
    for name in json.loads(metadata["parts"]).get("frozen", ()):
        if name not in parameters:
            raise CheckpointError(
                f"{path} has damaged metadata (no parameter {name!r} to freeze); save the learner again"
            )
        parameters[name].requires_grad_(False)


def rebuilt(metadata: Mapping[str, str], path: str | Path, backbone: nn.Module | None) -> dict[str, Any]:
    """The arguments of :class:`metafilm.MetaFiLM` that a file written part by part describes.

    Args:
        metadata: of the file.
        path: of the file, for messages.
        backbone: the network, where it is not metafilm's own; None: built anew.

    Raises:
        CheckpointError: damaged metadata, or a backbone of somebody else's making that was not given, or was
            given with other norms.
    """
    try:
        described = json.loads(metadata["parts"])
        name = described["backbone"]["class"]
        if described["backbone"]["arguments"] is None and backbone is None:
            raise CheckpointError(
                f"{path} was made with a backbone of class {name}, which is not metafilm's own; give the "
                f"network too: metafilm.learner.load_learner({str(path)!r}, backbone={name}(...))"
            )
        if backbone is None:
            backbone = _built(described["backbone"])
            if isinstance(backbone, Pretrained):
                backbone.origin = described.get("origin")
            if described.get("norm") is not None:
                _set_norm(backbone, described["norm"])
        elif "norm" in described and _norm(backbone) != described["norm"]:
            raise CheckpointError(
                f"{path} was made with a backbone {_with_norm(described['norm'])}, the one given is "
                f"{_with_norm(_norm(backbone))}; give it as it was (metafilm.norms.convert)"
            )
        if not film.sites(backbone):
            film.insert(backbone, described["sites"] or "none")
        built = {part: described[part] and _built(described[part]) for part in ("head", "encoder", "inner")}
        if "transform" in described:
            built["head"].transform = FeatureTransform(**described["transform"])
        return {
            "backbone": backbone,
            "image_shape": tuple(described["image_shape"]),
            "auxiliary_classes": described["auxiliary_classes"],
            **built,
            **{name: described[name] for name in PLAIN},
            "batch": described.get("batch"),
            "copies": described.get("copies", 0),
            "copy_augment": described.get("copy_augment", "shift"),
            "query_copies": described.get("query_copies", 0),
            "gate": Gate.from_dict(described["gate"]) if "gate" in described else None,
            "stage": described.get("stage"),
        }
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} has damaged metadata ({error}); save the learner again") from error


def _built(described: Mapping[str, Any]) -> nn.Module:
    return OWN[described["class"]](**described["arguments"])


def _set_norm(backbone: nn.Module, mode: str) -> None:
    if mode not in norms.MODES:
        raise ValueError(f"norm {mode!r}")
    for module in norms.convert(backbone, mode).modules():
        if isinstance(module, norms.Norm):
            module.mode = mode


def _with_norm(mode: str | None) -> str:
    return "without metafilm's norms" if mode is None else f"with metafilm's norms in mode {mode!r}"
