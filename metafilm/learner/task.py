"""One adapted task: a few hundred numbers that turn the shared network into this task's."""

from __future__ import annotations

import copy
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from episodes import Episode
from metafilm import film, norms
from metafilm.errors import CheckpointError, MetafilmError
from metafilm.learner import plain
from metafilm.storage import tensorfile

if TYPE_CHECKING:
    from metafilm.learner.learner import MetaFiLM

FORMAT, VERSION = "metafilm-task", "1"


class Task:
    """A learner adapted to one support set.

    Attributes:
        learner: the shared network it belongs to.
        film: the task's deviations, parameter name -> ``[C]``.
        state: what the head fitted to the support, name -> tensor with a leading axis of 1.
        statistics: norm name -> ``[2, C]`` mean and variance of the support, for learners that normalise by
            the task's own images (``support`` and ``transductive``; the latter's queries are normalised by
            the support here, so that they never see each other). Empty otherwise.
        classes: label of each output; empty for regression.
    """

    def __init__(
        self,
        learner: MetaFiLM,
        deviations: dict[str, Tensor],
        state: dict[str, Tensor],
        statistics: dict[str, Tensor],
        classes: list[Any],
    ) -> None:
        self.learner, self.film, self.state, self.statistics, self.classes = (
            learner,
            deviations,
            state,
            statistics,
            classes,
        )
        self._module: nn.Module | None = None

    def __repr__(self) -> str:
        size = sum(value.numel() for value in self.film.values())
        return f"Task({len(self.classes)} classes, {size} deviations at {len(self.film) // 2} sites)"

    def logits(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """``[Q, C, H, W]`` float in [0, 1] or uint8 -> ``[Q, ways]`` (regression: x -> y). Each row depends
        on its own image alone.
        """
        if self._module is None:
            self._module = self.to_module().eval()
        images = as_float(images, self.learner.image_shape).to(self.learner.mean.device)
        with torch.no_grad():
            return torch.cat([self._module(part) for part in images.split(batch_size)])

    def predict_proba(self, images: Tensor) -> Tensor:
        """Class probabilities ``[Q, ways]``, columns in the order of ``classes``.

        Raises:
            MetafilmError: a regression task, or images of another shape.
        """
        if self.learner.regression:
            raise MetafilmError("a regression task has values, not class probabilities; use predict")
        return self.logits(images).softmax(-1)

    def predict(self, images: Tensor) -> list[Any] | Tensor:
        """The most probable label of each image, as given to ``adapt``; for regression y ``[Q, 1]``."""
        if self.learner.regression:
            return self.logits(images)
        return [self.classes[i] for i in self.logits(images).argmax(-1).tolist()]

    def to_module(self) -> nn.Module:
        """A plain network for this task: images ``[B, C, H, W]`` in [0, 1] -> logits ``[B, ways]``.

        Ordinary layers only, FiLM folded into the norms; it knows nothing of metafilm's FiLM any more. In
        eval mode.

        Raises:
            MetafilmError: a FiLM site that can't be folded.
        """
        return plain.plain_network(self.learner, self.film, self.state, self.statistics)

    def save(self, path: str | Path) -> None:
        """Write the task, without the shared network, as a safetensors file of a few kilobytes."""
        tensors = {f"film/{name}": value for name, value in self.film.items()}
        tensors |= {f"head/{name}": value for name, value in self.state.items()}
        tensors |= {f"norm/{name}": value for name, value in self.statistics.items()}
        try:
            classes = tensorfile.as_json(self.classes)
        except TypeError as error:
            raise MetafilmError(
                f"labels {self.classes!r} can't be written as JSON; use strings or numbers"
            ) from error
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "head": type(self.learner.head).__name__,
            "classes": classes,
        }
        tensorfile.write(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path, learner: MetaFiLM) -> Task:
        """Read a saved task for the learner it was made with.

        Raises:
            CheckpointError: missing or damaged file, or a task that doesn't fit the learner.
        """
        tensors, metadata = tensorfile.read(path)
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
            raise CheckpointError(
                f"{path} is not a saved task: format {metadata.get('format')!r} version "
                f"{metadata.get('version')!r}, expected {FORMAT!r} {VERSION!r}"
            )
        parts: dict[str, dict[str, Tensor]] = {"film": {}, "head": {}, "norm": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            parts.setdefault(kind, {})[rest] = value.to(learner.mean.device)
        expected = {name: tuple(value.shape) for name, value in film.parameters(learner.backbone).items()}
        found = {name: tuple(value.shape) for name, value in parts["film"].items()}
        if expected != found:
            differing = sorted(
                name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
            )
            listed = "; ".join(
                f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}"
                for name in differing[:4]
            )
            raise CheckpointError(f"{path} was made with another learner: {listed}")
        head = type(learner.head).__name__
        if metadata.get("head") != head:
            raise CheckpointError(
                f"{path} was made with another learner: its head is {metadata.get('head')}, expected {head}"
            )
        own_norms = norms.mode_of(learner.backbone) in ("support", "transductive")
        if own_norms != bool(parts["norm"]):
            raise CheckpointError(
                f"{path} was made with another learner: it has {'' if parts['norm'] else 'no '}statistics of "
                f"its own, and this learner's norm mode is {norms.mode_of(learner.backbone)}"
            )
        return cls(
            learner, parts["film"], parts["head"], parts["norm"], json.loads(metadata.get("classes", "[]"))
        )


def as_float(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``[n, *shape]`` as floats in [0, 1].

    Raises:
        MetafilmError: another shape, or integers other than uint8.
    """
    if images.dim() != len(shape) + 1 or tuple(images.shape[1:]) != shape:
        raise MetafilmError(
            f"images have shape {tuple(images.shape)}, this learner expects (n, "
            f"{', '.join(map(str, shape))}); resize or convert them first"
        )
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise MetafilmError(f"images are {images.dtype}; give float in [0, 1], or uint8")
    return images


def class_order(labels: Sequence[Hashable]) -> list[Any]:
    """The distinct labels, sorted where they can be, else in order of first appearance."""
    distinct = list(dict.fromkeys(labels))
    try:
        return sorted(distinct)  # type: ignore[type-var]
    except TypeError:
        return distinct


def adapt(learner: MetaFiLM, images: Tensor, labels: Sequence[Any] | Tensor, steps: int | None) -> Task:
    """See :meth:`metafilm.MetaFiLM.adapt`."""
    images = as_float(images, learner.image_shape).to(learner.mean.device)
    if len(images) == 0 or len(labels) != len(images):
        raise MetafilmError(
            f"{len(labels)} labels for {len(images)} support images; give one label per image, and at least "
            "one image"
        )
    if learner.regression:
        classes, ways = [], 0
        targets = torch.as_tensor(labels, dtype=images.dtype, device=images.device).reshape(
            1, len(images), -1
        )
    else:
        values = labels.tolist() if isinstance(labels, Tensor) else list(labels)
        values = [value.item() if hasattr(value, "item") else value for value in values]
        classes = class_order(values)
        ways = len(classes)
        if ways < 2:
            raise MetafilmError(
                f"all support images have the label {classes[0]!r}; give images of at least two classes"
            )
        position = {label: i for i, label in enumerate(classes)}
        targets = torch.tensor([[position[value] for value in values]], device=images.device)
    episode = Episode(
        support_images=images.unsqueeze(0),
        support_labels=targets,
        query_images=images[:1].unsqueeze(0),
        query_labels=targets[:, :1],
        ways=ways,
        index=torch.zeros(1, dtype=torch.long),
    )
    was_training = learner.training
    learner.eval()
    try:
        with torch.no_grad():
            deviations = learner(episode, steps=steps).films[-1]
            deviations = {
                name: value[0].detach()
                for name, value in (deviations or film.zeros(learner.backbone, 1)).items()
            }
            return _settle(learner, deviations, episode, classes)
    finally:
        learner.train(was_training)


def _settle(learner: MetaFiLM, deviations: dict[str, Tensor], episode: Episode, classes: list[Any]) -> Task:
    """Fit the head to the support under the final deviations, keeping what normalised it."""
    x = learner.prepare(episode.support_images)
    statistics: dict[str, Tensor] = {}
    if norms.mode_of(learner.backbone) in ("support", "transductive"):
        scratch = copy.deepcopy(learner.backbone)
        with norms.layout(1, capture=True):
            features = film.call(scratch, deviations, x).unsqueeze(0)
        statistics = {
            name: torch.stack((module.running_mean, module.running_var))
            for name, module in scratch.named_modules()
            if isinstance(module, norms.Norm)
        }
    else:
        features = learner.features(x, deviations, 1)
    state = learner.head.fit(features, episode.support_labels, episode.ways)
    return Task(
        learner,
        deviations,
        {name: value.detach().clone() for name, value in state.items()},
        statistics,
        classes,
    )
