"""What a user does with a trained learner: bring it pictures, adapt it to a task, take features, save it."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from episodes import Episode
from metafilm import film
from metafilm.errors import MetafilmError
from metafilm.learner import parts
from metafilm.learner.network import SharedNetwork
from metafilm.learner.outcome import Adaptation
from metafilm.learner.pictures import Recipe, complaint, mismatched, preprocess
from metafilm.learner.support import as_pictures, support_episode
from metafilm.learner.task import Task, settled


class UsableNetwork(SharedNetwork):
    """A shared network, once there is a way from a support set to deviations."""

    @abstractmethod
    def adaptation(
        self,
        episode: Episode,
        *,
        steps: int | None = None,
        gate: bool | None = None,
        all_stages: bool = True,
    ) -> Adaptation:
        """From the support sets of T tasks to deviations, stage by stage."""

    def preprocess(
        self, pictures: Any, *, invert: str = "auto", recipe: Recipe | None = None
    ) -> tuple[Tensor, Recipe]:
        """Bring pictures of any kind to what the training data were: size, channels, orientation, polarity.

        Args:
            pictures: a list of paths, of PIL pictures or of arrays; an array or tensor ``[n, H, W]``,
                ``[n, C, H, W]`` or ``[n, H, W, C]``, C 1, 3 or 4; or rows ``[n, H * W]`` of square pictures.
                Files and PIL pictures are turned as their EXIF orientation says, transparency lies on white;
                the shorter side is resized (bilinear, antialiased), the middle cropped. uint8, floats in [0,
                1], or other numbers from 0 (flat rows: from their least) to their largest.
            invert: ``yes``, ``no`` or ``auto``: where the weights were trained on strokes on a dark ground
                and these pictures, taken together, are strokes on a light one (or the other way round), all
                change light and dark, with a warning. Photographs and colour networks are left alone.
            recipe: what the support set's call returned, for the queries: they are treated as it was,
                whatever they look like, so that no query depends on another; None: ``pictures`` are a
                support set.

        Returns:
            ``[n, *image_shape]``, uint8 or floats in [0, 1], for :meth:`adapt` and the task's ``predict``;
            and the recipe.

        Raises:
            MetafilmError: an unreadable file (named), values or shapes that are no pictures, or a learner
                that takes none.
        """
        return preprocess(self, pictures, invert=invert, recipe=recipe)

    def adapt(
        self,
        images: Any,
        labels: Sequence[Any] | Tensor,
        *,
        steps: int | None = None,
        gate: bool | None = None,
        checked: bool = False,
    ) -> Task:
        """Learn one task from its support set. Safe to call from several threads, and within
        ``torch.inference_mode``.

        Warns of drawings on the other ground than those trained on, which :meth:`preprocess` mends.

        Args:
            images: ``[S, C, H, W]`` float in [0, 1] or uint8, as a tensor, an array, or a list of pictures
                (:func:`metafilm.learner.support.as_pictures`); for regression x ``[S, features]``.
            labels: S labels of any hashable kind; for regression y ``[S, 1]``.
            steps: inner steps; None: the learner's ``evaluation_steps``, or none where its ``stage`` ends
                before.
            gate: whether held-out support images decide how many of them are taken; None: as the learner has
                it.
            checked: the images come from :meth:`preprocess`: nothing is said of their ground.

        Returns:
            The task: its deviations (``film``), ``predict``, ``predict_proba``, ``to_module``, ``save``; its
            ``report`` says what the gate saw and chose.

        Raises:
            MetafilmError: counts, shapes or values that don't fit, fewer than two classes.
        """
        if self.whole:
            raise MetafilmError(
                "this learner's inner steps move all weights, not deviations alone: it can be trained and "
                "scored, but its tasks can't be kept; train one with inner.adapts film"
            )
        with torch.inference_mode(False):  # which steps could not be taken in
            pictures = as_pictures(images, self.image_shape).to(self.mean.device, self.mean.dtype)
            if pictures.is_inference():
                pictures = pictures.clone()
            episode, classes = support_episode(pictures, labels, self.regression)
            self.head.require_targets(episode.support_labels)
            if not checked and not self.regression and mismatched(self, pictures):
                warnings.warn(
                    f"{complaint(self, len(pictures))}: invert them, or bring them to the learner's form by "
                    "its preprocess",
                    stacklevel=2,
                )
            with self.evaluating(), torch.no_grad():
                found = self.adaptation(episode, steps=steps, gate=gate, all_stages=False)
                films = found.films[-1] or film.zeros(self.backbone, 1)
                deviations = {name: value[0].detach() for name, value in films.items()}
                report = found.reports[0] if found.reports else None
                return settled(self, deviations, episode, classes, report)

    def embed(self, images: Any, task: Task | None = None, *, batch_size: int = 256) -> Tensor:
        """Features of images, for a classifier, a plot or a search of one's own. Safe to call from several
        threads.

        Args:
            images: ``[n, C, H, W]`` as in :meth:`adapt`.
            task: under whose deviations; None: δ = 0, the plain network. Where the norms read the images
                themselves (mode ``support``), a task's features are normalised by its support, and without a
                task each batch of images by itself.

        Returns:
            ``[n, D]``; each row depends on its own image alone, but for such norms.

        Raises:
            MetafilmError: images that don't fit, or a task of another learner.
        """
        if task is not None and task.learner is not self:
            raise MetafilmError(
                f"{task!r} was made with another learner; use that one's embed, or adapt it here"
            )
        pictures = as_pictures(images, self.image_shape).to(self.mean.device, self.mean.dtype)
        if task is not None:
            return task.embed(pictures, batch_size)
        if not len(pictures):  # no network takes none
            return self.embed(pictures.new_zeros(1, *self.image_shape))[:0]
        with self.evaluating(), torch.no_grad():
            chunks = [self.prepare(part.unsqueeze(0)) for part in pictures.split(batch_size)]
            return torch.cat([self.features(part, {}, 1)[0] for part in chunks])

    def save(self, path: str | Path) -> None:
        """Write the learner as a safetensors file from which :meth:`from_pretrained` reads it again. Safe to
        call while other threads adapt.

        Raises:
            MetafilmError: a head, encoder or inner loop of somebody else's making, which a file can't
                rebuild. (A backbone may be: :func:`metafilm.learner.load_learner` is then given it.)
        """
        parts.save(path, self)
