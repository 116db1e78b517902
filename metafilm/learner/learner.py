"""MetaFiLM: encode the support set, take inner steps, predict the queries; each stage turns deviations into
deviations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from episodes import Episode
from episodes.transforms import augment
from metafilm import film, heads
from metafilm.backbones import Pretrained
from metafilm.conditioning import ConstantEncoder, TaskEncoder, class_spread
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict
from metafilm.heads import Head, prototypes
from metafilm.learner.batches import alike, augmented_views, batches
from metafilm.learner.copies import looks_at_queries, with_copies, with_looks
from metafilm.learner.gate import Gate, choose, require_classes
from metafilm.learner.inner_loop import InnerLoop
from metafilm.learner.network import join
from metafilm.learner.outcome import Adaptation, Outcome
from metafilm.learner.task import file as taskfile
from metafilm.learner.usable import UsableNetwork


class MetaFiLM(UsableNetwork):
    """A few-shot learner whose tasks are FiLM deviations.

    Args:
        backbone, head, image_shape, mean, std: see :class:`metafilm.learner.network.SharedNetwork`.
        encoder: predicts δ⁰ from the support set, or has one for all tasks; None: δ⁰ = 0.
        inner: the inner loop; None: no steps.
        steps: inner steps in training.
        evaluation_steps: inner steps otherwise; None: the same.
        first_order: drop second derivatives in training.
        views, view_augment: augmented copies of the support that the inner loss holds out (0: none), and by
            which augmentation (:func:`episodes.transforms.augment.by_name`); used where an episode brings
            none of its own.
        auxiliary_classes: classes of the auxiliary classifier; 0: none.
        detach_encoder: the task encoder's loss gives the backbone no gradient through the support features at
            δ = 0.
        batch: support images of each class that one inner step is taken on, the next ones with each step, so
            that it costs no more time and memory than for so many shots; None: all.
        copies, copy_augment: augmented copies of each support image that the head is fitted to as well, in
            evaluation (0: none), and by which augmentation; adaptation does not see them.
        query_copies: copies of each query image by the same augmentation, in evaluation: its logits are the
            mean over itself and them, and copy k of every image, the support's too, is made by the same
            transformation. Each costs as much as the query itself.
        gate: chooses, task by task in evaluation, between no adaptation, the encoder's, and 1 ...
            ``evaluation_steps`` steps; None: all steps are taken.
        stage: how far tasks are adapted in evaluation where nobody asks for steps or a gate: ``identity``
            (not at all), ``encoder`` (by the encoder alone); None: as far as there is.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        encoder: TaskEncoder | ConstantEncoder | None = None,
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
        batch: int | None = None,
        copies: int = 0,
        copy_augment: str = "shift",
        query_copies: int = 0,
        gate: Gate | None = None,
        stage: str | None = None,
    ) -> None:
        super().__init__(backbone, head, image_shape=image_shape, mean=mean, std=std)
        self.encoder, self.inner = encoder, inner
        self.steps = steps
        self.evaluation_steps = steps if evaluation_steps is None else evaluation_steps
        if inner is None and (self.steps or self.evaluation_steps):
            raise MetafilmError(
                f"{max(self.steps, self.evaluation_steps)} inner steps asked for, but the learner has no "
                f"inner loop; set film.sites, or inner.steps 0"
            )
        self.whole = inner is not None and bool(inner.weights)
        self.first_order, self.views, self.view_augment = first_order, views, view_augment
        self.auxiliary = nn.Linear(backbone.out_features, auxiliary_classes) if auxiliary_classes else None  # type: ignore[arg-type]
        self.detach_encoder = detach_encoder
        if batch is not None and batch < 1:
            raise MetafilmError(f"batch {batch} must be at least 1 image of each class, or None for all")
        self.batch = batch
        for name, value in (("copies", copies), ("query_copies", query_copies)):
            if not isinstance(value, int) or value < 0 or (value and head.regression):
                most = "0, for functions have none" if head.regression else "a whole number, 0 or more"
                raise MetafilmError(f"{name} {value!r} must be {most}")
        augment.by_name(copy_augment)  # raises
        self.copies, self.copy_augment, self.query_copies = copies, copy_augment, query_copies
        if gate is not None:
            require_classes(self)
        self.gate = gate
        if stage not in (None, "identity", *(["encoder"] if encoder is not None else [])):
            raise MetafilmError(
                f"stage {stage!r} is none this learner has; expected identity, encoder (with one) or None"
            )
        if stage is not None and gate is not None:
            raise MetafilmError(f"stage {stage!r} beside a gate, which judges each task; give one of them")
        self.stage = stage

    @classmethod
    def from_backbone(
        cls,
        name: str,
        image_shape: Sequence[int] | None = None,
        *,
        weights: str | Path | None = "default",
        sites: str | Sequence[str] = "all",
        head: str = "cosine",
        steps: int = 20,
        step_size: float = 1.5e-3,
        proximal: float = 0.0,
        views: int = 1,
        view_augment: str = "affine",
        gate: Gate | bool | Mapping[str, Any] = True,
        **options: Any,
    ) -> MetaFiLM:
        """A network of timm or torchvision whose FiLM layers adapt to a task by Adam steps, all else frozen.

        Args:
            name: ``timm:NAME`` or ``torchvision:NAME``.
            image_shape: ``(1 or 3, H, W)``; None: what the network was made for.
            weights: see :class:`metafilm.backbones.Pretrained`; None: random.
            sites: see :func:`metafilm.film.insert`.
            head: by name; one that needs no training: ``cosine``, ``prototype`` or ``ridge``.
            steps, step_size, proximal: of the inner loop (:class:`metafilm.InnerLoop`).
            views, view_augment: held-out copies of the support; ``affine`` turns, scales and shifts.
            gate: whether held-out images decide how many of the steps a task takes, and by which settings
                (a mapping: those of :class:`metafilm.Gate`).
            options: further arguments of :class:`metafilm.MetaFiLM`.

        Returns:
            The learner in evaluation mode.

        Raises:
            MetafilmError: see :class:`metafilm.backbones.Pretrained`.
        """
        if isinstance(gate, Mapping):
            gate = Gate.from_dict(gate)
        network = Pretrained(name, image_shape, weights)
        backbone = film.insert(network.requires_grad_(False), sites)
        found = film.sites(backbone)
        inner = InnerLoop(found, 1, step_size, learn=False, optimiser="adam", proximal=proximal)
        learner = cls(
            backbone,
            heads.build(head, network.out_features, 2),
            inner=inner,
            image_shape=network.image_shape,
            evaluation_steps=steps,
            views=views,
            view_augment=view_augment,
            gate=(Gate() if gate else None) if isinstance(gate, bool) else gate,
            **options,
        )
        # random weights can't be had again
        if weights is not None and options.keys() <= taskfile.OPTIONS.keys():
            learner.source = {
                "name": name,
                "image_shape": list(network.image_shape),
                "weights": str(weights),
                "sites": sites if isinstance(sites, str) else list(sites),
                "head": head,
                "steps": steps,
                "step_size": float(step_size),
                "proximal": float(proximal),
                "views": views,
                "view_augment": view_augment,
                "gate": gate.to_dict() if isinstance(gate, Gate) else gate,
                **{option: value for option, value in options.items() if value is not None},
            }
        return learner.eval()

    # The picture, top to bottom: forward = adaptation (encode, then inner steps), then predictions.

    def forward(
        self,
        episode: Episode,
        *,
        steps: int | None = None,
        all_stages: bool = False,
        encoder_episode: Episode | None = None,
        use_encoder: bool = True,
        gate: bool | None = None,
    ) -> Outcome:
        """Adapt to each task's support set and predict its queries.

        Args:
            episode: T tasks.
            steps: inner steps; None: ``steps`` in training mode, else as ``stage`` and ``evaluation_steps``
                say.
            all_stages: predict at every stage (``identity``: δ = 0; ``encoder``: δ⁰; ``step 1`` ...; in
                evaluation with a gate ``gate``: what each task chose; with a ``stage`` ``chosen``: that one
                again), not the last alone.
            encoder_episode: whose support sets the task encoder reads instead of the episode's own.
            use_encoder: False starts the inner loop from δ = 0.
            gate: False takes all steps whatever the gate would say; True asks one of the usual settings where
                the learner has none; None: as the learner has it. In training there never is one.
        """
        found = self.adaptation(
            episode,
            steps=steps,
            encoder_episode=encoder_episode,
            use_encoder=use_encoder,
            gate=gate,
            all_stages=all_stages,
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
        gate: bool | None = None,
        all_stages: bool = True,
    ) -> Adaptation:
        """The first half of :meth:`forward`: from support sets to deviations.

        Without ``all_stages`` the steps between are forgotten as they pass, so that memory does not grow with
        their number where no graph is kept; and a gate that chooses no step takes none.
        """
        # whoever asks for steps, a gate or another encoder's support means to see what they do
        asked = steps is not None or gate is not None or encoder_episode is not None or not use_encoder
        stage = None if self.training or asked else self.stage
        steps = (self.steps if self.training else self.evaluation_steps) if steps is None else steps
        if steps < 0:
            raise MetafilmError(f"{steps} inner steps asked for; give 0 or more")
        if steps and self.inner is None:
            raise MetafilmError(
                f"{steps} inner steps asked for, but this learner was built without an inner loop; "
                "use steps 0"
            )
        found = Adaptation(["identity"], [{}])
        if stage == "identity" and not all_stages:
            return found
        if self.encoder is not None and use_encoder:
            start, found.features, found.code = self.encoded(encoder_episode or episode)
            found.add("encoder", start)
        if stage is not None and not all_stages:
            return found
        chooser = self._gate(gate) if steps or len(found.stages) > 1 else None
        if steps and (all_stages or chooser is None):
            path = self.trajectory(episode, found.films[-1], steps, losses=found.inner_losses)
            for k, deviations in enumerate(path, 1):
                if all_stages or k == steps:
                    found.add(f"step {k}", deviations)
        if chooser is not None:
            known = dict(zip(found.stages, found.films, strict=True))
            deviations, found.reports = choose(self, chooser, episode, steps, known, encoder_episode)
            found.add("gate", deviations)
        if stage is not None:
            found.add("chosen", found.films[found.stages.index(stage)])
        return found

    def _gate(self, wanted: bool | None) -> Gate | None:
        """The gate to ask; none in training."""
        if self.training or wanted is False:
            return None
        if self.gate is None and wanted:
            require_classes(self)
            return Gate()
        return self.gate

    def encoded(self, episode: Episode) -> tuple[FilmDict, Tensor | None, Tensor | None]:
        """δ⁰ of each task, the features that it was read from where they are of use to somebody else, and the
        task vector c where there is one."""
        if not isinstance(self.encoder, TaskEncoder):
            return {} if self.encoder is None else self.encoder(episode.tasks), None, None
        images, tasks = self.prepare(episode.support_images), episode.tasks
        if self.regression:
            x = images.unflatten(0, (tasks, -1))
            code = self.code(x, episode.support_labels, episode.ways)
            return self.encoder.decode(code), None, code
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_encoder):
            features = self.features(images, {}, tasks)
        code = self.code(features, episode.support_labels, episode.ways)
        return self.encoder.decode(code), None if self.detach_encoder else features, code

    def encode(self, features: Tensor, labels: Tensor, ways: int) -> FilmDict:
        """δ⁰ from support features at δ = 0.

        Args:
            features: ``[T, S, D]``; for regression the inputs x ``[T, S, C]``.
            labels: ``[T, S]``; for regression y ``[T, S, 1]``.
        """
        if self.encoder is None:
            return {}
        if isinstance(self.encoder, ConstantEncoder):
            return self.encoder(labels.shape[0])
        return self.encoder.decode(self.code(features, labels, ways))

    def code(self, features: Tensor, labels: Tensor, ways: int) -> Tensor:
        """The task vector c, ``[T, width]``, of which :meth:`encode` makes δ⁰; arguments as there."""
        assert isinstance(self.encoder, TaskEncoder)
        if self.regression:
            return self.encoder.encode(torch.cat((features, labels), -1))
        members = prototypes(features, labels, ways)
        reads_spread = self.encoder.spread is not None
        return self.encoder.encode(members, class_spread(features, labels, members) if reads_spread else None)

    def trajectory(
        self,
        episode: Episode,
        start: FilmDict,
        steps: int,
        *,
        factor: float = 1.0,
        losses: list[Tensor] | None = None,
    ) -> Iterator[FilmDict]:
        """δ¹ ... δᴷ, ``[T, C]`` each, from ``start`` (``{}``: δ = 0) on each task's support.

        Args:
            steps: K.
            factor: on the step sizes.
            losses: takes the inner losses ``[T]``, one before each step.

        Raises:
            MetafilmError: within ``torch.inference_mode``; or under noise, tasks of which a step takes
                different numbers of rows.
        """
        assert self.inner is not None
        if torch.is_inference_mode_enabled() or self.mean.is_inference():
            raise MetafilmError(
                "inner steps take gradients, which torch.inference_mode forbids, also to what was made in "
                "it; make the learner outside, and run it under torch.no_grad or by its adapt"
            )
        tasks = episode.tasks
        if self.batch is not None and not self.regression:
            groups = alike(episode.support_labels, episode.ways, self.batch)
            if len(groups) > 1:
                return self._in_groups(episode, groups, start, steps, factor, losses)
        start = start or film.zeros(self.backbone, tasks)
        if self.inner.weights:
            shapes = self.inner.weights.items()
            start = start | {name: self.mean.new_zeros(tasks, *shape) for name, shape in shapes}
        each_step = batches(self, episode, self.views_of(episode), self.batch)

        def loss(deviations: FilmDict) -> Tensor:
            images, labels = next(each_step)
            shots = labels.shape[1]
            features = self.head.seen(self.features(images, deviations, tasks, support=shots))
            held_out = features[:, shots:] if features.shape[1] > shots else None
            value = self.head.inner_loss(features[:, :shots], labels, episode.ways, held_out)
            if losses is not None:
                losses.append(value.detach())
            return value

        return self.inner(
            start,
            loss,
            steps,
            first_order=self.first_order,
            meta_gradient=torch.is_grad_enabled(),
            factor=factor,
        )

    def _in_groups(
        self,
        episode: Episode,
        groups: Sequence[list[int]],
        start: FilmDict,
        steps: int,
        factor: float,
        losses: list[Tensor] | None,
    ) -> Iterator[FilmDict]:
        """:meth:`trajectory`, the tasks of each group by themselves."""
        if self.underlay is not None:
            raise MetafilmError(
                f"tasks of different class counts can't take steps on {self.batch} images of each class "
                "under noise; give all the same counts, or leave outer.film_noise or inner.batch out"
            )
        before: list[list[Tensor]] = [[] for _ in groups]
        paths = [
            self.trajectory(
                Episode.cat([episode.select(task) for task in group]),
                {name: value[group] for name, value in start.items()},
                steps,
                factor=factor,
                losses=own,
            )
            for group, own in zip(groups, before, strict=True)
        ]
        order = torch.tensor([task for group in groups for task in group], device=episode.device).argsort()
        for found in zip(*paths, strict=True):
            if losses is not None:
                losses.append(torch.cat([own[-1] for own in before])[order])
            yield {name: torch.cat([part[name] for part in found])[order] for name in found[0]}

    def views_of(self, episode: Episode) -> Tensor | None:
        """Augmented support copies ``[T, V·S, ...]`` where the head's inner loss wants them."""
        if not self.head.held_out_views or self.views == 0:
            return None
        if episode.support_views is not None:
            return episode.support_views.flatten(1, 2)
        images = self.unit(episode.support_images)
        return augmented_views(images, self.views, self.view_augment, episode.index)

    def predictions(self, episode: Episode, films: Sequence[FilmDict]) -> Iterator[tuple[Tensor, Tensor]]:
        """The second half of :meth:`forward`: under each of these deviations, the queries' predictions ``[T,
        Q, ways]`` and the features ``[T, n, D]`` they come from, the support's first where the head reads it.
        In training the normalisation statistics under the last of them are noted for the running averages.

        Where queries have copies, their predictions are the mean over them, and the features are of all: of
        every query, then of every copy 1 ...
        """
        episode = with_copies(self, episode)
        tasks, labels = episode.tasks, episode.support_labels
        queries, count = episode.query_images, 1 if self.training else looks_at_queries(self)
        if count > 1:
            queries = with_looks(self.unit(queries).to(self.mean.dtype), count, self.copy_augment)
        x = self.prepare(queries)
        support = labels.shape[1] if self.reads_support else 0
        if support:
            x = join(self.prepare(episode.support_images), x, tasks)
        if len(films) > 1:
            # what comes before the first deviation is normalised here, once for all of them
            x = self.stem(x, tasks, support=support or None, record=self.training)
        for number, deviations in enumerate(films, 1):
            last = number == len(films)
            found, features = self.predict_prepared(x, deviations, labels, episode.ways, support, record=last)
            yield found.unflatten(1, (count, -1)).mean(1) if count > 1 else found, features
