"""One adapted task: a few hundred numbers that turn the shared network into this task's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from episodes import Episode
from metafilm import film, norms
from metafilm.errors import MetafilmError, NotFinite
from metafilm.learner.copies import Averaged, looks, looks_at_queries, with_copies
from metafilm.learner.finite import not_finite, require_finite_weights
from metafilm.learner.gate import Report
from metafilm.learner.network import SharedNetwork
from metafilm.learner.support import as_pictures
from metafilm.learner.task import file as taskfile
from metafilm.learner.task import plain
from metafilm.storage.calibration import Calibration


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
        fingerprint: of the weights it was adapted with (:meth:`SharedNetwork.fingerprint`).
        report: what the gate saw and chose; None where there was none.
        shots: support images of each class; None where a file of an older version doesn't say.
    """

    def __init__(
        self,
        learner: SharedNetwork,
        deviations: dict[str, Tensor],
        state: dict[str, Tensor],
        statistics: dict[str, Tensor],
        classes: list[Any],
        fingerprint: str | None = None,
        report: Report | None = None,
        shots: list[int] | None = None,
    ) -> None:
        self.learner, self.film, self.state = learner, deviations, state
        self.statistics, self.classes = statistics, classes
        self.fingerprint = fingerprint or learner.fingerprint()
        self.report, self.shots = report, shots
        # the plain network, and what of the learner it was made by: where, its precision, how often it looks
        self._module: tuple[tuple[torch.device, torch.dtype, int, str], nn.Module] | None = None

    def __repr__(self) -> str:
        size = sum(value.numel() for value in self.film.values())
        return f"Task({len(self.classes)} classes, {size} deviations at {len(self.film) // 2} sites)"

    def logits(self, images: Any, batch_size: int = 256) -> Tensor:
        """``[Q, C, H, W]`` as in ``adapt`` -> ``[Q, ways]`` (regression: x -> y). Each row depends on its own
        image alone; the mean over its copies, where the learner has ``query_copies``.
        """
        return self._batched(self._network(), images, batch_size)

    def embed(self, images: Any, batch_size: int = 256) -> Tensor:
        """``[Q, C, H, W]`` as in ``adapt`` -> features under the task's deviations ``[Q, D]``."""
        network = self._network()
        normalise, backbone, _ = (network.network if isinstance(network, Averaged) else network).children()
        return self._batched(nn.Sequential(normalise, backbone), images, batch_size)

    def _network(self) -> nn.Module:
        learner, kept = self.learner, self._module
        now = (learner.mean.device, learner.mean.dtype, learner.query_copies, learner.copy_augment)
        if kept is None or kept[0] != now:
            kept = self._module = now, self.to_module()
        return kept[1]

    def _state(self) -> dict[str, Tensor]:
        """What the head fitted, where the learner is now and in its precision."""
        mean = self.learner.mean
        return {
            name: value.to(mean.device, mean.dtype if value.is_floating_point() else None)
            for name, value in self.state.items()
        }

    def _batched(self, network: Callable[[Tensor], Tensor], images: Any, batch_size: int) -> Tensor:
        mean = self.learner.mean
        pictures = as_pictures(images, self.learner.image_shape)
        with torch.no_grad():
            # part by part to where the network is: all of them may not fit there
            return torch.cat(
                [network(part.to(mean.device, mean.dtype)) for part in pictures.split(batch_size)]
            )

    def predict_proba(self, images: Any) -> Tensor:
        """Class probabilities ``[Q, ways]``, columns in the order of ``classes``; at the temperature that
        was calibrated for the learner's weights, where one was (``metafilm calibrate``).

        Raises:
            MetafilmError: a regression task, or images of another shape.
        """
        if self.learner.regression:
            raise MetafilmError("a regression task has values, not class probabilities; use predict")
        return (self.logits(images) / self.temperature).softmax(-1)

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities; 1 where none was calibrated, and for
        a task from an older file, which doesn't say how many shots it had."""
        calibration = self._calibration()
        return (
            1.0 if calibration is None or self.shots is None else calibration.temperature(fmean(self.shots))
        )

    def predict(self, images: Any) -> list[Any] | Tensor:
        """The most probable label of each image, as given to ``adapt``; for regression y ``[Q, 1]``."""
        if self.learner.regression:
            return self.logits(images)
        return [self.classes[i] for i in self.logits(images).argmax(-1).tolist()]

    def familiarity(self, images: Any) -> Tensor:
        """How much each image is like the support's, ``[Q]``; see :meth:`metafilm.heads.Head.familiarity`.

        Raises:
            MetafilmError: a regression task, or one from a file that doesn't say how many shots it had.
        """
        if self.learner.regression or self.shots is None:
            raise MetafilmError(
                f"{self!r} can't tell familiar images from others: it is of functions, or of an older file; "
                "adapt it again"
            )
        learner = self.learner
        with learner.evaluating(), torch.no_grad():
            count = looks_at_queries(learner)
            pictures = as_pictures(images, learner.image_shape)
            pictures = pictures if count == 1 else pictures.to(learner.mean)
            counts, state, found = learner.mean.new_tensor([self.shots]), self._state(), []
            for look in looks(pictures, count, learner.copy_augment):
                features = learner.head.seen(self.embed(look).unsqueeze(0))
                found.append(learner.head.familiarity(state, features, counts)[0])
            return torch.stack(found).mean(0)

    def known(self, images: Any, reject: float) -> Tensor:
        """Which images are of one of the task's classes, bool ``[Q]``.

        Args:
            reject: the share of images of known classes that may be taken for unknown; the threshold for it
                comes from the validation tasks of the learner's calibration.

        Raises:
            MetafilmError: ``reject`` not between 0 and 1, weights that were not calibrated, or see
                :meth:`familiarity`.
        """
        calibration = self._calibration()
        if calibration is None:
            raise MetafilmError(
                "these weights have no threshold for unknown pictures; metafilm calibrate RUN finds one on "
                "validation tasks, for learners that were trained"
            )
        familiar = self.familiarity(images)
        assert self.shots is not None  # or that would have raised
        return familiar >= calibration.threshold(reject, fmean(self.shots))

    def _calibration(self) -> Calibration | None:
        found = self.learner.calibration
        return found if found is not None and found.weights == self.fingerprint else None

    def to_module(self) -> nn.Module:
        """A plain network for this task: images ``[B, C, H, W]`` in [0, 1] -> logits ``[B, ways]``.

        Ordinary layers only, FiLM folded into the norms; it knows nothing of metafilm's FiLM any more. In
        eval mode. Where the learner has ``query_copies``, the mean over an image and its copies.

        Raises:
            MetafilmError: a FiLM site that can't be folded.
        """
        return plain.plain_network(self.learner, self.film, self._state(), self.statistics)

    def save(self, path: str | Path) -> None:
        """Write the task, without the shared network, as a safetensors file: 4 kB of Conv-4 with five
        classes.

        Raises:
            MetafilmError: labels that JSON has no form for.
        """
        taskfile.write(path, self.contents(), self.learner)

    def contents(self) -> taskfile.Contents:
        """What its file keeps."""
        return taskfile.Contents(
            self.film,
            self.state,
            self.statistics,
            self.classes,
            self.fingerprint,
            self.report,
            self.shots,
        )

    @classmethod
    def load(cls, path: str | Path, learner: SharedNetwork | None = None) -> Task:
        """Read a saved task.

        Args:
            learner: the learner it was made with; None: the one that the file names (a run directory, a
                weights file, shipped weights, or a pre-trained network and its sites).

        Raises:
            CheckpointError: missing or damaged file, or a task that doesn't fit the learner.
        """
        if learner is None:
            return cls.load(path, SharedNetwork.from_pretrained(taskfile.source_of(path)))
        return cls(learner, *taskfile.read(path, learner))


def settled(
    network: SharedNetwork,
    deviations: dict[str, Tensor],
    episode: Episode,
    classes: list[Any],
    report: Report | None = None,
) -> Task:
    """The task of these deviations: the head fitted to the support under them, and what normalised it.

    Args:
        network: in evaluation mode.
        deviations: ``[C]`` each.
        episode: one task.
        report: of the gate.
    """
    counts = episode.support_labels[0].bincount(minlength=len(classes)) if classes else None
    episode = with_copies(network, episode)
    x = network.prepare(episode.support_images)
    statistics: dict[str, Tensor] = {}
    if norms.mode_of(network.backbone) in ("support", "transductive"):
        with film.exclusive(network.backbone):
            scratch = copy.deepcopy(network.backbone)
        with norms.layout(1, capture=True):
            features = film.call(scratch, deviations, x).unsqueeze(0)
        statistics = {
            name: torch.stack((module.running_mean, module.running_var))
            for name, module in scratch.named_modules()
            if isinstance(module, norms.Norm)
        }
    else:
        features = network.features(x, deviations, 1)
    state = network.head.fit(network.head.seen(features), episode.support_labels, episode.ways)
    state = {name: value.detach().clone() for name, value in state.items()}
    if bad := not_finite({"the support features": features, **deviations, **state}):
        require_finite_weights(network)
        raise NotFinite(
            f"adapting gave values that are not finite: {bad[0]}, though the weights are; lower "
            "inner.step_size, or look for NaN in the images"
        )
    shots = None if counts is None else counts.tolist()
    return Task(network, deviations, state, statistics, classes, report=report, shots=shots)
