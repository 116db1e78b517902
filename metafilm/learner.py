"""MetaFiLM: backbone, task encoder, inner loop and head composed into one module."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from episodes import Episode
from metafilm import film, norms
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict
from metafilm.heads import Head, prototypes
from metafilm.inner_loop import InnerLoop
from metafilm.task_encoder import TaskEncoder

if TYPE_CHECKING:
    from metafilm.task import Task


@dataclass
class Outcome:
    """What one pass over a batch of T tasks gives.

    ``predictions`` and ``films`` have one entry per stage asked for: ``[T, Q, ways]`` logits (or
    ``[T, Q, 1]`` values) and deviations ``[T, C]``. ``features`` and ``feature_classes``: the features at δ =
    0 (without an encoder: at δᴷ) and which pool classes they belong to, for the auxiliary classification;
    None where the pass does not make them.
    """

    stages: list[str]
    predictions: list[Tensor]
    films: list[FilmDict]
    features: Tensor | None = None
    feature_classes: Tensor | None = None
    inner_losses: list[Tensor] = field(default_factory=list)


class MetaFiLM(nn.Module):
    """A few-shot learner whose tasks are FiLM deviations.

    Args:
        backbone: a network with FiLM layers inserted (:func:`metafilm.film.insert`); ``[B, ...]`` in,
            ``[B, D]`` out.
        head: from :mod:`metafilm.heads`.
        encoder: predicts δ⁰ from the support set; None: δ⁰ = 0.
        inner: the inner loop; None: no steps.
        image_shape: ``(C, H, W)``, or ``(features,)`` for vectors.
        mean, std: per-channel statistics of the training images in [0, 1], taken off inside: callers pass
            plain images.
        steps: inner steps in training.
        evaluation_steps: inner steps otherwise; None: the same.
        first_order: drop second derivatives in training.
        views, view_augment: how many augmented copies of the support the inner loss holds out (0: none), and
            by which augmentation (:func:`episodes.augment.by_name`); used where an episode brings none of its
            own.
        auxiliary_classes: classes of the auxiliary classifier; 0: none.
        detach_encoder: the task encoder's loss gives the backbone no gradient through the support features at
            δ = 0.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        encoder: TaskEncoder | None = None,
        inner: InnerLoop | None = None,
        *,
        image_shape: tuple[int, ...],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        steps: int = 0,
        evaluation_steps: int | None = None,
        first_order: bool = False,
        views: int = 1,
        view_augment: str = "shift",
        auxiliary_classes: int = 0,
        detach_encoder: bool = False,
    ) -> None:
        super().__init__()
        channels = image_shape[0]
        self.backbone, self.head, self.encoder, self.inner = backbone, head, encoder, inner
        # a task's own, substituted in every pass: the outer loop's gradient has no business there
        for deviation in film.parameters(backbone).values():
            deviation.requires_grad_(False)
        self.image_shape = tuple(image_shape)
        self.steps = steps
        self.evaluation_steps = steps if evaluation_steps is None else evaluation_steps
        if inner is None and (self.steps or self.evaluation_steps):
            raise MetafilmError(
                f"{max(self.steps, self.evaluation_steps)} inner steps asked for, but the learner has no "
                f"inner loop; set film.sites, or inner.steps 0"
            )
        self.first_order, self.views, self.view_augment = first_order, views, view_augment
        self.auxiliary = nn.Linear(backbone.out_features, auxiliary_classes) if auxiliary_classes else None  # type: ignore[arg-type]
        self.detach_encoder = detach_encoder
        self.autocast = False  # the outer loop switches bf16 autocast of the backbone on while it trains
        shape = (-1, *[1] * (len(image_shape) - 1))
        self.register_buffer("mean", torch.tensor(mean if mean is not None else [0.0] * channels).view(shape))
        self.register_buffer("std", torch.tensor(std if std is not None else [1.0] * channels).view(shape))
        self.config: Any = None  # the config it was built from, where there is one; goes with the weights

    mean: Tensor
    std: Tensor

    @classmethod
    def from_pretrained(cls, name_or_path: str) -> MetaFiLM:
        """A trained learner in evaluation mode.

        Args:
            name_or_path: a run directory, a ``.safetensors`` file that metafilm wrote, or the name of weights
                that ship with the package (``"omniglot-conv4"``).

        Raises:
            MetafilmError: nothing there, or not a learner's weights; says what was found and expected.
        """
        from metafilm.checkpoint import load_learner

        return load_learner(name_or_path)

    @property
    def regression(self) -> bool:
        """Whether labels are real values instead of classes."""
        from metafilm.heads import RegressionHead

        return isinstance(self.head, RegressionHead)

    @property
    def protocol(self) -> str:
        """``"transductive"`` when queries see each other at evaluation, else ``"inductive"``."""
        return "transductive" if norms.mode_of(self.backbone) == "transductive" else "inductive"

    def outer_parameters(self) -> dict[str, nn.Parameter]:
        """All that the outer loop learns: everything but the deviations, which are a task's own."""
        own = {f"backbone.{name}" for name in film.parameters(self.backbone)}
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name not in own and parameter.requires_grad
        }

    def prepare(self, images: Tensor) -> Tensor:
        """``[T, n, C, H, W]`` in [0, 1] -> normalised ``[T·n, C, H, W]``, channels last."""
        if tuple(images.shape[2:]) != self.image_shape:
            raise MetafilmError(
                f"images have shape {tuple(images.shape[2:])}, this learner expects {self.image_shape}; "
                f"resize them first"
            )
        x = (images.flatten(0, 1) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def features(
        self, x: Tensor, deviations: FilmDict, tasks: int, *, support: int | None = None, record: bool = False
    ) -> Tensor:
        """Backbone features.

        Args:
            x: prepared images ``[T·n, ...]``.
            deviations: ``[T, C]`` each; {} is δ = 0.
            tasks: T.
            support: how many of each task's n rows are support rows, which come first; None: all.
            record: note the normalisation statistics for the running averages.

        Returns:
            ``[T, n, D]``, in the weights' precision.
        """
        with (
            norms.layout(tasks, support, record),
            torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast),
        ):
            features = film.call(self.backbone, deviations, x)
        return features.to(self.mean.dtype).unflatten(0, (tasks, -1))

    def encode(self, features: Tensor, labels: Tensor, ways: int) -> FilmDict:
        """δ⁰ from support features at δ = 0.

        Args:
            features: ``[T, S, D]``; for regression the inputs x ``[T, S, C]``.
            labels: ``[T, S]``; for regression y ``[T, S, 1]``.
        """
        if self.encoder is None:
            return {}
        members = torch.cat((features, labels), -1) if self.regression else prototypes(features, labels, ways)
        return self.encoder(members)

    def forward(
        self,
        episode: Episode,
        *,
        steps: int | None = None,
        all_stages: bool = False,
        encoder_episode: Episode | None = None,
        use_encoder: bool = True,
    ) -> Outcome:
        """Adapt to each task's support set and predict its queries.

        Args:
            episode: T tasks.
            steps: inner steps; None: ``steps`` in training mode, else ``evaluation_steps``.
            all_stages: predict at every stage (``identity``: δ = 0; ``encoder``: δ⁰; ``step 1`` ...), not the
                last alone.
            encoder_episode: whose support sets the task encoder reads instead of the episode's own.
            use_encoder: False starts the inner loop from δ = 0.
        """
        steps = (self.steps if self.training else self.evaluation_steps) if steps is None else steps
        if steps and self.inner is None:
            raise MetafilmError(
                f"{steps} inner steps asked for, but this learner was built without an inner loop; "
                "use steps 0"
            )
        tasks, ways = episode.tasks, episode.ways
        labels = episode.support_labels
        support = self.prepare(episode.support_images)
        encoding = self.encoder is not None and use_encoder
        own_features = None
        stages: list[tuple[str, FilmDict]] = [("identity", {})]
        if encoding and encoder_episode is not None:
            other = self.prepare(encoder_episode.support_images)
            stages.append(
                (
                    "encoder",
                    self._encode_images(other, encoder_episode.support_labels, encoder_episode.ways, tasks)[
                        0
                    ],
                )
            )
        elif encoding:
            start, own_features = self._encode_images(support, labels, ways, tasks)
            stages.append(("encoder", start))
        inner_losses: list[Tensor] = []
        if steps:
            stages += self._inner_stages(stages[-1][1], support, episode, steps, inner_losses)
        if not all_stages:
            stages = stages[-1:]
        outcome = Outcome(
            [name for name, _ in stages],
            [],
            [deviations for _, deviations in stages],
            inner_losses=inner_losses,
        )
        query = self.prepare(episode.query_images)
        for _, deviations in stages:
            prediction, features = self._predict(deviations, support, query, episode)
            outcome.predictions.append(prediction)
        if self.auxiliary is not None and self.training and episode.class_ids is not None:
            known = labels if own_features is not None else torch.cat((labels, episode.query_labels), 1)
            outcome.features = own_features if own_features is not None else features
            outcome.feature_classes = episode.class_ids.gather(1, known[:, -outcome.features.shape[1] :])
        return outcome

    def _encode_images(
        self, images: Tensor, labels: Tensor, ways: int, tasks: int
    ) -> tuple[FilmDict, Tensor | None]:
        if self.regression:
            return self.encode(images.unflatten(0, (tasks, -1)), labels, ways), None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_encoder):
            features = self.features(images, {}, tasks)
        return self.encode(features, labels, ways), None if self.detach_encoder else features

    def _inner_stages(
        self, start: FilmDict, support: Tensor, episode: Episode, steps: int, losses: list[Tensor]
    ) -> Iterable[tuple[str, FilmDict]]:
        assert self.inner is not None
        tasks, labels = episode.tasks, episode.support_labels
        shots = labels.shape[1]
        images = support
        views = self._views(episode)
        if views is not None:
            # one pass: a task's support rows, then its views
            prepared = self.prepare(views)
            images = torch.cat(
                (support.unflatten(0, (tasks, -1)), prepared.unflatten(0, (tasks, -1))), 1
            ).flatten(0, 1)

        def loss(deviations: FilmDict) -> Tensor:
            features = self.features(images, deviations, tasks, support=shots)
            held_out = features[:, shots:] if views is not None else None
            value = self.head.inner_loss(features[:, :shots], labels, episode.ways, held_out)
            losses.append(value.detach())
            return value

        start = start or film.zeros(self.backbone, tasks)
        moves = self.inner(
            start, loss, steps, first_order=self.first_order, meta_gradient=torch.is_grad_enabled()
        )
        return [(f"step {i + 1}", deviations) for i, deviations in enumerate(moves)]

    def _views(self, episode: Episode) -> Tensor | None:
        """Augmented support copies ``[T, V·S, ...]`` where the head's inner loss wants them."""
        if not self.head.held_out_views or self.views == 0:
            return None
        if episode.support_views is not None:
            return episode.support_views.flatten(1, 2)
        from metafilm.views import augmented_views

        return augmented_views(episode.support_images, self.views, self.view_augment, episode.index)

    def _predict(
        self, deviations: FilmDict, support: Tensor, query: Tensor, episode: Episode
    ) -> tuple[Tensor, Tensor]:
        """Logits ``[T, Q, ways]`` and the features of that pass."""
        tasks, labels = episode.tasks, episode.support_labels
        if self.head.uses_support or norms.mode_of(self.backbone) == "support":
            shots = labels.shape[1]
            both = torch.cat((support.unflatten(0, (tasks, -1)), query.unflatten(0, (tasks, -1))), 1).flatten(
                0, 1
            )
            features = self.features(both, deviations, tasks, support=shots, record=self.training)
            state = self.head.fit(features[:, :shots], labels, episode.ways)
            return self.head.predict(state, features[:, shots:]), features
        features = self.features(query, deviations, tasks, record=self.training)
        return self.head.predict(self.head.fit(features[:, :0], labels, episode.ways), features), features

    def adapt(self, images: Tensor, labels: Sequence[Any] | Tensor, *, steps: int | None = None) -> Task:
        """Learn one task from its support set.

        Args:
            images: ``[S, C, H, W]`` float in [0, 1] or uint8; for regression x ``[S, features]``.
            labels: S labels of any hashable kind; for regression y ``[S, 1]``.
            steps: inner steps; None: the learner's ``evaluation_steps``.

        Returns:
            The task: its deviations (``film``), ``predict``, ``predict_proba``, ``to_module``, ``save``.

        Raises:
            MetafilmError: counts or shapes that don't fit, fewer than two classes.
        """
        from metafilm.task import adapt

        return adapt(self, images, labels, steps)
