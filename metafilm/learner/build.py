"""From a configuration, or from a file, to a learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from metafilm import film, heads, norms
from metafilm.backbones import BACKBONES, LITE0, MLP, Conv4, Pretrained
from metafilm.backbones.pretrained import LIBRARIES, unlike
from metafilm.conditioning import ConstantEncoder, TaskEncoder
from metafilm.config.config import Config
from metafilm.config.messages import flag
from metafilm.errors import CheckpointError, MetafilmError
from metafilm.learner import parts
from metafilm.learner.gate import Gate
from metafilm.learner.inner_loop import InnerLoop
from metafilm.learner.learner import MetaFiLM
from metafilm.storage import tensorfile
from metafilm.storage.calibration import read_calibration
from metafilm.storage.models import load_state, model_path, read_classes, read_model


def build_backbone(config: Config, image_shape: tuple[int, ...]) -> nn.Module:
    """The plain backbone of the configuration, without FiLM."""
    settings = config.backbone
    if settings.name == "mlp":
        return MLP(image_shape[0], settings.hidden, settings.activation)
    if settings.name.partition(":")[0] in LIBRARIES:
        network = Pretrained(settings.name, image_shape, settings.weights)
        if settings.norm == "running":  # its own norms, by their averages as they are
            return network
        converted = norms.convert(network, settings.norm)
        if not any(isinstance(module, norms.Norm) for module in converted.modules()):
            raise MetafilmError(
                f"--backbone.norm {settings.norm} needs plain BatchNorm2d layers to convert, and "
                f"{settings.name} has none; use --backbone.norm running, which keeps its norms as they are"
            )
        return converted
    shape = (image_shape[0], image_shape[1], image_shape[2])
    options: dict[str, Any] = {} if settings.pooling is None else {"pooling": settings.pooling}
    if settings.name == "conv4":
        options |= {"pools": settings.pools, "last_relu": settings.last_relu}
    return BACKBONES[settings.name](shape, settings.width, settings.norm, **options)


def build_learner(
    config: Config,
    image_shape: Sequence[int],
    train_classes: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    gate: Mapping[str, Any] | None = None,
) -> MetaFiLM:
    """A learner with fresh weights, a function of ``config.seed`` alone (the global random state is left as
    it was).

    Args:
        config: all settings.
        image_shape: ``(C, H, W)``; ``(1,)`` for functions of one number.
        train_classes: classes of the auxiliary classifier, used where ``outer.auxiliary`` is not 0.
        mean, std: per-channel statistics of the training images in [0, 1]; None: 0 and 1.
        gate: settings of the gate (:meth:`metafilm.Gate.to_dict`) where ``inner.gate`` asks for one; None:
            the usual ones.
    """
    shape = tuple(int(size) for size in image_shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = build_backbone(config, shape)
        film.insert(backbone, config.film.sites)
        sites = film.sites(backbone)
        features: int = backbone.out_features  # type: ignore[assignment]
        ways = config.episodes.ways if isinstance(config.episodes.ways, int) else config.episodes.ways[1]
        head = heads.build(
            config.head.name,
            features,
            ways,
            config.head.scale,
            config.head.transform,
            getattr(backbone, "cells", 1),
            config.head.blend,
            config.head.blend_weight,
        )
        regression = head.regression
        encoder = None
        if config.encoder.enabled and config.encoder.kind == "constant":
            encoder = ConstantEncoder(sites)
        elif config.encoder.enabled:
            encoder = TaskEncoder(
                shape[0] + 1 if regression else features,
                sites,
                config.encoder.width,
                config.encoder.decoder,
                config.encoder.pooling,
                config.encoder.scale,
                config.encoder.depth,
                normalise=not regression,
                spread=config.encoder.spread,
                codes=config.encoder.codes,
                domains=len(config.data.names) if config.outer.domain else 0,
                modulation=config.film.modulation,
            )
        inner = None
        steps = max(config.inner.steps, config.inner.evaluation_steps or 0)
        if steps:
            inner = InnerLoop(
                sites,
                max(config.inner.steps, 1),
                config.inner.step_size,
                learn=config.inner.learn_step_size and config.inner.steps > 0,
                granularity=config.inner.granularity,
                per_step=config.inner.per_step,
                optimiser=config.inner.optimiser,
                proximal=config.inner.proximal,
                modulation=config.film.modulation,
                weights=_shapes(backbone) if config.inner.adapts == "all" else None,
            )
        learner = MetaFiLM(
            backbone,
            head,
            encoder,
            inner,
            image_shape=shape,
            # a pre-trained network normalises images its own way
            mean=None if isinstance(backbone, Pretrained) else mean,
            std=None if isinstance(backbone, Pretrained) else std,
            steps=config.inner.steps,
            evaluation_steps=config.inner.evaluation_steps,
            first_order=config.inner.first_order,
            views=config.inner.views,
            view_augment=config.inner.view_augment,
            detach_encoder=config.encoder.detach,
            batch=config.inner.batch,
            copies=config.evaluation.copies,
            copy_augment=config.evaluation.copy_augment,
            query_copies=config.evaluation.query_copies,
            gate=_gate(gate) if config.inner.gate else None,
            stage=parts.ADAPT.get(config.evaluation.adapt),
            auxiliary_classes=train_classes if config.outer.auxiliary else 0,
        )
        if config.backbone.weights is not None and not isinstance(backbone, Pretrained):
            begin_with(learner, config.backbone.weights)
    for part in config.outer.freeze:
        if (module := getattr(learner, part)) is not None:
            module.requires_grad_(False)
    learner.config = config
    return learner


def _gate(settings: Mapping[str, Any] | None) -> Gate:
    return Gate() if settings is None else Gate.from_dict(settings)


# Settings of a network that no shape of its weights tells.
UNTOLD: dict[type[nn.Module], tuple[str, ...]] = {Conv4: ("pools", "last_relu"), MLP: ("activation",)}


def begin_with(learner: MetaFiLM, weights: str | Path) -> None:
    """Give the learner the shared network of another one, its own deviations folded in, and the statistics
    that its images were normalised by; head, task encoder and step sizes stay as they are. One of grey images
    sees colours as their mean.

    Args:
        weights: a run directory, a ``.safetensors`` file or the name of shipped weights.

    Raises:
        CheckpointError: no such weights, or those of another network; the learner is then as it was.
    """
    other = load_learner(weights)
    if isinstance(other.backbone, Pretrained):
        raise CheckpointError(
            f"{weights} holds a network of {other.backbone.arguments['name']}, not one of metafilm's own to "
            "start from"
        )
    plain, own = film.fold(other.backbone).state_dict(), film.parameters(learner.backbone)
    statistics = {name: getattr(other, name) for name in ("mean", "std")}
    expected = {name: value for name, value in learner.backbone.state_dict().items() if name not in own}
    if len(other.mean) == 1 and len(learner.mean) == 3:
        statistics = {name: value.expand_as(learner.mean) for name, value in statistics.items()}
        for name in expected.keys() & plain.keys():
            if plain[name].dim() == 4 and plain[name].shape[1] == 1 and expected[name].shape[1] == 3:
                plain[name] = plain[name].expand(-1, 3, -1, -1) / 3
    wrong = unlike(expected, plain)
    if any(value.shape != getattr(learner, name).shape for name, value in statistics.items()):
        wrong.append("the channels of its images")
    if _modes(other.backbone) != _modes(learner.backbone):
        wrong.append("the norms' statistics (--backbone.norm)")
    if type(other.backbone) is type(learner.backbone):
        there, here = (cast(dict[str, Any], one.backbone.arguments) for one in (other, learner))
        wrong += [
            f"{flag(f'backbone.{name}')}, there {there[name]}, here {here[name]}"
            for name in UNTOLD.get(type(other.backbone), ())
            if there[name] != here[name]
        ]
    if wrong:
        raise CheckpointError(
            f"the network of {weights} is another than the section backbone asks for, it differs in "
            f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}; take its own settings"
        )
    learner.backbone.load_state_dict(plain, strict=False)
    for name, value in statistics.items():
        getattr(learner, name).copy_(value)


def _modes(backbone: nn.Module) -> set[str]:
    return {module.mode for module in backbone.modules() if isinstance(module, norms.Norm)}


def _shapes(backbone: nn.Module) -> dict[str, list[int]]:
    """Of the backbone's own weights, which are no deviations."""
    deviations = film.parameters(backbone)
    return {n: list(value.shape) for n, value in backbone.named_parameters() if n not in deviations}


def is_pretrained(name: object) -> bool:
    """Whether this names a network of another library: ``lite0``, ``timm:NAME`` or ``torchvision:NAME``."""
    return name == "lite0" or str(name).startswith(tuple(f"{library}:" for library in LIBRARIES))


def pretrained_learner(
    name: str,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    sites: str | Sequence[str] = "all",
    **settings: Any,
) -> MetaFiLM:
    """A learner of a network that :func:`is_pretrained` names; see :meth:`MetaFiLM.from_backbone`.

    Args:
        weights: None: ``lite0``'s own, or the library's from its hub.
        image_size: side of the square pictures; None: what the network was made for.

    Raises:
        MetafilmError: a side that is not positive; see :meth:`MetaFiLM.from_backbone`.
    """
    if image_size is not None and image_size < 1:
        raise MetafilmError(f"image_size {image_size} must be a positive number of pixels, such as 64")
    return MetaFiLM.from_backbone(
        LITE0 if name == "lite0" else name,
        None if image_size is None else (3, image_size, image_size),
        weights=weights or ("lite0" if name == "lite0" else "default"),
        sites=sites,
        **settings,
    )


def load_learner(
    path_or_name: str | Path | dict[str, Any],
    device: str | torch.device = "cpu",
    *,
    backbone: nn.Module | None = None,
) -> MetaFiLM:
    """The learner of a run directory, a ``.safetensors`` file, shipped weights such as ``omniglot-conv4``,
    or a pre-trained network: ``lite0``, ``timm:NAME``, ``torchvision:NAME``, or the arguments of
    :meth:`MetaFiLM.from_backbone`.

    Args:
        backbone: the network, for a file whose learner had one that is not metafilm's own.

    Returns:
        The learner in evaluation mode.

    Raises:
        CheckpointError: missing, damaged or unfitting file.
        ConfigError: the configuration inside is not one.
    """
    if isinstance(path_or_name, dict):
        return MetaFiLM.from_backbone(**path_or_name).to(device)
    if is_pretrained(path_or_name):
        return pretrained_learner(str(path_or_name)).to(device)
    path = model_path(path_or_name)
    tensors, metadata = tensorfile.read(path)
    if metadata.get("version") == parts.VERSION and "parts" in metadata:
        learner = MetaFiLM(**parts.rebuilt(metadata, path, backbone))
        parts.freeze(learner, metadata, path)
    else:
        tensors, config, build = read_model(path)
        try:
            # the file brings the weights: none are fetched
            bare = replace(config, backbone=replace(config.backbone, weights=None))
            learner = build_learner(bare, **build)
            learner.config = config
        except MetafilmError:
            raise
        except (TypeError, ValueError, IndexError) as error:
            raise CheckpointError(
                f"{path} has damaged metadata ({error}); train or download it again"
            ) from error
    load_state(learner, tensors, path)
    learner.source = str(path_or_name)
    learner.trained_on = read_classes(path)
    learner.calibration = read_calibration(path)
    return learner.to(device).eval()
