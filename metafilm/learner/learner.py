"""MetaFiLM: backbone, task encoder, inner loop and head composed into one module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from episodes import Episode
from metafilm import film, norms
from metafilm.conditioning.task_encoder import TaskEncoder
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict
from metafilm.heads import Head, prototypes
from metafilm.learner.inner_loop import InnerLoop

if TYPE_CHECKING:
    from metafilm.learner.task import Task


@dataclass
class Adaptation:
    """How T tasks were adapted.

    ``stages`` and ``films``: the names of the stages gone through and their deviations ``[T, C]`` (``{}``: δ
    = 0). ``features``: the support features at δ = 0 that the task encoder read, with a graph, where the
    auxiliary classification may use them. ``inner_losses``: ``[T]`` for each inner step, before it.
    """

    stages: list[str]
    films: list[FilmDict]
    features: Tensor | None = None
    inner_losses: list[Tensor] = field(default_factory=list)


@dataclass
class Outcome:
    """What one pass over a batch of T tasks gives: for each stage asked for its name, its deviations ``[T,
    C]`` and the predictions, ``[T, Q, ways]`` logits or ``[T, Q, 1]`` values."""

    stages: list[str]
    predictions: list[Tensor]
    films: list[FilmDict]
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
        views, view_augment: augmented copies of the support that the inner loss holds out (0: none), and by
            which augmentation (:func:`episodes.transforms.augment.by_name`); used where an episode brings
            none of its own.
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
        from metafilm.storage.models import load_learner

        return load_learner(name_or_path)

    @property
    def regression(self) -> bool:
        """Whether labels are real values instead of classes."""
        return self.head.regression

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
        """``[T, n, C, H, W]`` in [0, 1], or uint8 -> normalised ``[T·n, C, H, W]``, channels last."""
        if tuple(images.shape[2:]) != self.image_shape:
            raise MetafilmError(
                f"images have shape {tuple(images.shape[2:])}, this learner expects {self.image_shape}; "
                f"resize them first"
            )
        x = (self._unit(images.flatten(0, 1)) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def stem(self, x: Tensor, tasks: int, *, support: int | None = None) -> Any:
        """What the backbone makes of prepared images before its first FiLM site, to be passed to
        :meth:`features` in their place as often as wanted; the images themselves where it has no such part.
        """
        if not hasattr(self.backbone, "stem"):
            return x
        with norms.layout(tasks, support), self._precision(x):
            return self.backbone.stem(x)  # type: ignore[operator]

    def features(
        self, x: Any, deviations: FilmDict, tasks: int, *, support: int | None = None, record: bool = False
    ) -> Tensor:
        """Backbone features.

        Args:
            x: prepared images ``[T·n, ...]``, or their :meth:`stem` under the same tasks and support.
            deviations: ``[T, C]`` each; {} is δ = 0.
            tasks: T.
            support: how many of each task's n rows are support rows, which come first; None: all.
            record: note the normalisation statistics for the running averages.

        Returns:
            ``[T, n, D]``, in the weights' precision.
        """
        with norms.layout(tasks, support, record), self._precision(self.mean):
            features = film.call(self.backbone, deviations, x)
        return features.to(self.mean.dtype).unflatten(0, (tasks, -1))

    def _precision(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast)

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
        found = self.adaptation(
            episode, steps=steps, encoder_episode=encoder_episode, use_encoder=use_encoder
        )
        first = 0 if all_stages else -1
        stages, films = found.stages[first:], found.films[first:]
        predictions = [prediction for prediction, _ in self.predictions(episode, films)]
        return Outcome(stages, predictions, films, found.inner_losses)

    def adaptation(
        self,
        episode: Episode,
        *,
        steps: int | None = None,
        encoder_episode: Episode | None = None,
        use_encoder: bool = True,
    ) -> Adaptation:
        """The first half of :meth:`forward`: from support sets to deviations."""
        steps = (self.steps if self.training else self.evaluation_steps) if steps is None else steps
        if steps and self.inner is None:
            raise MetafilmError(
                f"{steps} inner steps asked for, but this learner was built without an inner loop; "
                "use steps 0"
            )
        found = Adaptation(["identity"], [{}])
        if self.encoder is not None and use_encoder:
            start, found.features = self._encode_support(encoder_episode or episode)
            found.stages.append("encoder")
            found.films.append(start)
        if steps:
            for k, deviations in enumerate(self._inner_steps(found, episode, steps)):
                found.stages.append(f"step {k + 1}")
                found.films.append(deviations)
        return found

    def predictions(self, episode: Episode, films: Sequence[FilmDict]) -> Iterator[tuple[Tensor, Tensor]]:
        """The second half of :meth:`forward`: under each of these deviations, the queries' predictions ``[T,
        Q, ways]`` and the features ``[T, n, D]`` they come from, the support's first where the head reads it.
        In training the normalisation statistics are noted for the running averages.
        """
        tasks, labels = episode.tasks, episode.support_labels
        x = self.prepare(episode.query_images)
        support = labels.shape[1] if self.reads_support else 0
        if support:
            x = _join(self.prepare(episode.support_images), x, tasks)
        if len(films) > 1:
            x = self.stem(x, tasks, support=support or None)
        for deviations in films:
            yield self.predict_prepared(x, deviations, labels, episode.ways, support)

    def predict_prepared(
        self, x: Any, deviations: FilmDict, labels: Tensor, ways: int, support: int
    ) -> tuple[Tensor, Tensor]:
        """One of :meth:`predictions`, from prepared images (or their stem) whose first ``support`` rows of
        each task are the support's."""
        tasks = labels.shape[0]
        features = self.features(x, deviations, tasks, support=support or None, record=self.training)
        state = self.head.fit(features[:, :support], labels, ways)
        return self.head.predict(state, features[:, support:]), features

    @property
    def reads_support(self) -> bool:
        """Whether the support goes through the adapted network together with the queries."""
        return self.head.uses_support or norms.mode_of(self.backbone) == "support"

    def _encode_support(self, episode: Episode) -> tuple[FilmDict, Tensor | None]:
        images, tasks = self.prepare(episode.support_images), episode.tasks
        if self.regression:
            x = images.unflatten(0, (tasks, -1))
            return self.encode(x, episode.support_labels, episode.ways), None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_encoder):
            features = self.features(images, {}, tasks)
        found = self.encode(features, episode.support_labels, episode.ways)
        return found, None if self.detach_encoder else features

    def _inner_steps(self, found: Adaptation, episode: Episode, steps: int) -> Iterator[FilmDict]:
        assert self.inner is not None
        tasks, labels = episode.tasks, episode.support_labels
        shots = labels.shape[1]
        images = self.prepare(episode.support_images)
        views = self.views_of(episode)
        if views is not None:
            # one pass: a task's support rows, then its views
            images = _join(images, self.prepare(views), tasks)
        images = self.stem(images, tasks, support=shots)

        def loss(deviations: FilmDict) -> Tensor:
            features = self.features(images, deviations, tasks, support=shots)
            held_out = features[:, shots:] if views is not None else None
            value = self.head.inner_loss(features[:, :shots], labels, episode.ways, held_out)
            found.inner_losses.append(value.detach())
            return value

        return self.inner(
            found.films[-1] or film.zeros(self.backbone, tasks),
            loss,
            steps,
            first_order=self.first_order,
            meta_gradient=torch.is_grad_enabled(),
        )

    def views_of(self, episode: Episode) -> Tensor | None:
        """Augmented support copies ``[T, V·S, ...]`` where the head's inner loss wants them."""
        if not self.head.held_out_views or self.views == 0:
            return None
        if episode.support_views is not None:
            return episode.support_views.flatten(1, 2)
        from metafilm.learner.views import augmented_views

        images = self._unit(episode.support_images)
        return augmented_views(images, self.views, self.view_augment, episode.index)

    def _unit(self, images: Tensor) -> Tensor:
        """uint8 pixels as floats in [0, 1]."""
        return images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images

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
        from metafilm.learner.task import adapt

        return adapt(self, images, labels, steps)


def _join(first: Tensor, second: Tensor, tasks: int) -> Tensor:
    """``[T·a, ...]``, ``[T·b, ...]`` -> ``[T·(a + b), ...]``, each task's rows of the first before its rows
    of the second."""
    both = torch.cat((first.unflatten(0, (tasks, -1)), second.unflatten(0, (tasks, -1))), 1).flatten(0, 1)
    return both.contiguous(memory_format=torch.channels_last) if both.dim() == 4 else both
