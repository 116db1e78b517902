"""The same weights under another head, or other settings of the one they were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from metafilm import heads, norms
from metafilm.backbones import flattens
from metafilm.conditioning import TaskEncoder
from metafilm.config.config import Config
from metafilm.errors import MetafilmError
from metafilm.heads import BlendHead
from metafilm.learner.build import build_learner
from metafilm.learner.learner import MetaFiLM

OWN = ("steps", "evaluation_steps", "views", "view_augment", "batch", "gate", "stage")
"""What somebody may have set on the learner itself."""
OF_TASKS = ("support", "transductive")
"""Norm modes that take nothing from the weights but their gains and biases."""


def overridden(
    learner: MetaFiLM,
    *,
    head: str | None = None,
    scale: float | None = None,
    transform: Sequence[str] | None = None,
    blend: str | None = None,
    blend_weight: float | None = None,
    pooling: str | None = None,
    norm: str | None = None,
    copies: int | None = None,
    copy_augment: str | None = None,
    query_copies: int | None = None,
) -> MetaFiLM:
    """A learner of the same weights that judges its tasks another way; None leaves a setting as it is.

    What a head of the same kind has learned (its scale and the like) it keeps, another one starts from its
    first values. The mean that ``centre`` takes off is 0 until :func:`metafilm.evaluation.centre` has
    measured it.

    Args:
        learner: built from settings; left as it is.
        head, scale, transform, blend, blend_weight, pooling, norm, copies, copy_augment, query_copies: as the
            settings ``head.name``, ``head.scale``, ``head.transform``, ``head.blend``,
            ``head.blend_weight``, ``backbone.pooling``, ``backbone.norm``, ``evaluation.copies``,
            ``evaluation.copy_augment`` and ``evaluation.query_copies``. A head of cells takes ``flatten`` by
            itself where the network was trained with a mean over the map.

    Returns:
        A new learner in evaluation mode, on the same device, with its own ``config``.

    Raises:
        MetafilmError: a learner without settings, a head that would have to be trained, a task encoder whose
            features would change, maps that were not averaged where a blend needs their mean, or statistics
            that the weights were not trained for.
        ConfigError: settings that contradict each other.
    """
    old = learner.config
    if not isinstance(old, Config):
        raise MetafilmError(
            "this learner was saved without settings, so that they can't be given other values; build it "
            "from a configuration"
        )
    config = replace(
        old,
        head=replace(
            old.head,
            **_given(name=head, scale=scale, transform=transform, blend=blend, blend_weight=blend_weight),
        ),
        evaluation=replace(
            old.evaluation,
            **_given(copies=copies, copy_augment=copy_augment, query_copies=query_copies),
        ),
    )
    used = [name for name in (config.head.name, config.head.blend) if name is not None]
    for name in used:
        if name != old.head.name and name in heads.HEADS and not heads.HEADS[name].uses_support:
            raise MetafilmError(f"the {name} head has to be trained; use one that is fitted to the support")
    cells = any(name in heads.HEADS and heads.HEADS[name].local for name in used)
    trained = getattr(learner.backbone, "pooling", None)
    if pooling is None and cells and trained is not None and not flattens(trained):
        pooling = "flatten"
    if pooling is not None:
        config = replace(config, backbone=replace(config.backbone, pooling=pooling))
    if norm is not None and norm != old.backbone.norm:
        _require_statistics(learner, old.backbone.norm, norm)
        config = replace(config, backbone=replace(config.backbone, norm=norm))
    config.validate("other settings for the same weights")
    if cells and trained == "max" and not all(heads.HEADS[name].local for name in used):
        raise MetafilmError(
            "a blend of cells and whole images takes the mean over the maps, and this network was trained "
            "with their maximum; use one head alone"
        )
    made = _built(learner, config)
    for name in OWN:
        setattr(made, name, getattr(learner, name))
    made.load_state_dict(_state(learner, made))
    made.source, made.trained_on = learner.source, learner.trained_on
    return made.to(learner.mean.device, learner.mean.dtype).eval()


def _require_statistics(learner: MetaFiLM, was: str, norm: str) -> None:
    """Raises MetafilmError: the weights can't be used with norms of this mode."""
    if norm in norms.MODES and (norm not in OF_TASKS or was == "group"):
        raise MetafilmError(
            f"the weights were trained with norms of mode {was}, and have nothing that mode {norm} could go "
            f"by; use {' or '.join(OF_TASKS if was != 'group' else [was])}"
        )
    if isinstance(learner.encoder, TaskEncoder):
        raise MetafilmError(
            f"the task encoder was trained on features under norms of mode {was}, which mode {norm} changes; "
            "leave the norms as they are"
        )


def _given(**settings: Any) -> dict[str, Any]:
    given = {name: value for name, value in settings.items() if value is not None}
    return given | ({"transform": tuple(given["transform"])} if "transform" in given else {})


def _built(learner: MetaFiLM, config: Config) -> MetaFiLM:
    """The learner that the settings describe, without an auxiliary classifier, which is of no use here."""
    bare = replace(config, backbone=replace(config.backbone, weights=None))
    made = build_learner(
        bare, learner.image_shape, 0, learner.mean.flatten().tolist(), learner.std.flatten().tolist()
    )
    made.config = config
    if isinstance(made.encoder, TaskEncoder) and not learner.regression:
        was, now = learner.feature_size, made.feature_size
        if was != now:
            raise MetafilmError(
                f"the task encoder was trained on {was} features of an image, and under these settings there "
                f"are {now}; choose a head of whole images, or leave the pooling as it was"
            )
    return made


def _state(learner: MetaFiLM, made: MetaFiLM) -> dict[str, Any]:
    """The old weights under their new names; what is new has its first values."""
    state = made.state_dict()
    old = {
        name: value
        for name, value in learner.state_dict().items()
        if not name.startswith(("head.", "auxiliary."))
    }
    for _, was in _heads(learner.head, "head."):
        own = {name: value for name, value in was.state_dict().items() if not name.startswith("transform.")}
        for place, head in _heads(made.head, "head."):
            if type(head) is type(was):
                old |= {place + name: value for name, value in own.items()}
    return state | old


def _heads(head: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    """Each single head, with the beginning of its names in a state."""
    if not isinstance(head, BlendHead):
        return [(prefix, head)]
    return [(f"{prefix}first.", head.first), (f"{prefix}second.", head.second)]
