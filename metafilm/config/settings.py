"""The sections of a run's configuration: frozen dataclasses, every field documented once.

The text below a field is what `metafilm train --help` shows for it. Each section checks its own values in
`check`, which yields every problem it finds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import episodes
from episodes.transforms import augment, styles
from metafilm.config.strict import close_match

Problem = tuple[str, str]
"""A field's name and what is wrong with it, e.g. ("iterations", "must be at least 1, is 0")."""

REGRESSION_DATA = ("sinusoids",)


def free(default: Any) -> Any:
    """A field that may differ when a run is resumed: it doesn't change which weights come out."""
    return field(default=default, metadata={"may_differ_on_resume": True})


@dataclass(frozen=True)
class Data:
    """Which images (or functions) tasks are drawn from."""

    name: str | tuple[str, ...] = "omniglot"
    """Data set: a name from `metafilm data list`, or folder:PATH; several make a mixture."""
    scheme: str | None = None
    """Class split, where a data set has several (omniglot: vinyals, lake, random); empty: its default."""
    image_size: int | None = None
    """Side of the square images in pixels, at least 16; empty: the data set's own."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str = "val"
    """Split on which the best weights are chosen."""
    rotated_classes: bool = False
    """Add every class turned by 90, 180 and 270 degrees as a class of its own, in every split (Omniglot's
    convention since Vinyals et al. 2016; Snell et al. 2017 test so too)."""
    allow_overlap: bool = free(False)
    """Train even where validation classes are trained on too; their score then says little about new ones."""
    download: bool = free(False)
    """Fetch the data set if it is not there."""
    in_memory: bool = free(True)
    """Hold images in memory; false: map them from the cache file."""

    def check(self) -> Iterator[Problem]:
        yield from at_least(self, 16, "image_size")
        names = (self.name,) if isinstance(self.name, str) else self.name
        if not names or "" in names:
            yield "name", f"must name at least one data set, is {self.name!r}"
        for name in names:
            if name and not name.startswith("folder:"):
                yield from known(name, "name", episodes.DATASETS)
        if len(names) > 1 and any(name in REGRESSION_DATA for name in names):
            yield "name", f"can't mix images and functions, is {', '.join(names)}"


@dataclass(frozen=True)
class Episodes:
    """The shape of a training task. A range (two numbers, low and high) is drawn anew for each task."""

    ways: int | tuple[int, int] = 5
    """Classes in a task, or a range."""
    shots: int | tuple[int, int] = 1
    """Support images per class, or a range."""
    queries: int = 15
    """Query images per class."""
    within_group: bool = False
    """Draw a task's classes from one group (an alphabet, a superclass)."""
    rotation: Literal["none", "per-class"] = "none"
    """per-class: each class of a training task is turned by 0, 90, 180 or 270 degrees at random."""
    augment: str = "none"
    """Augmentation of every training image, by name (none, crop-flip, shift, ...)."""
    style: str = "none"
    """Transform drawn once per task and applied to all its images, by name (none, known-filters, ...)."""

    def check(self) -> Iterator[Problem]:
        yield from at_least(self, 1, "shots", "queries")
        yield from at_least(self, 2, "ways")
        yield from known(self.augment, "augment", augment.BY_NAME)
        try:
            styles.by_name(self.style)
        except episodes.EpisodesError as error:
            yield "style", f"is unknown: {error}"
        for name in ("ways", "shots"):
            value = getattr(self, name)
            if isinstance(value, tuple) and value[0] > value[1]:
                yield name, f"must be a range from low to high, is {value[0]} {value[1]}"


@dataclass(frozen=True)
class Backbone:
    """The shared network."""

    name: Literal["conv4", "resnet12", "mlp"] = "conv4"
    """Architecture."""
    width: int = 64
    """Feature maps of the first block (conv4: of every block)."""
    hidden: tuple[int, ...] = (40, 40)
    """Sizes of the hidden layers (mlp only)."""
    activation: Literal["relu", "tanh", "silu"] = "relu"
    """Between the hidden layers (mlp only); tanh fits smooth curves better after few inner steps."""
    norm: Literal["running", "support", "group", "transductive"] = "running"
    """Where normalisation statistics come from; transductive reads the query set, and results say so."""

    def check(self) -> Iterator[Problem]:
        yield from at_least(self, 1, "width")
        if not self.hidden or min(self.hidden) < 1:
            yield "hidden", f"must be one or more sizes of at least 1, is {self.hidden}"


@dataclass(frozen=True)
class Film:
    """Where the deviations sit."""

    sites: Literal["all", "none", "last"] | tuple[str, ...] = "all"
    """Sites that may deviate per task: all, none, last, or a list of their names."""

    def check(self) -> Iterator[Problem]:
        if isinstance(self.sites, tuple) and not self.sites:
            yield "sites", "is an empty list; write none for a network without FiLM"


@dataclass(frozen=True)
class Encoder:
    """The task encoder: from the support set to the first deviations."""

    enabled: bool = True
    """Predict deviations from the support set; false: start from zero."""
    decoder: Literal["linear", "mlp", "gru"] = "linear"
    """From the task vector to a site's deviations."""
    width: int = 64
    """Size of the task vector and of the decoder's hidden layers."""
    pooling: Literal["mean", "mean-std"] = "mean-std"
    """How class prototypes are pooled into one vector."""
    depth: int = 1
    """Layers that embed a class prototype (or an (x, y) pair) before pooling."""
    scale: Literal["site", "feature"] = "feature"
    """One learned post-multiplier per site, or one per feature map."""
    detach: bool = False
    """Give the backbone no gradient through what the task encoder reads: a third of that pass's cost."""

    def check(self) -> Iterator[Problem]:
        yield from at_least(self, 1, "width", "depth")


@dataclass(frozen=True)
class Head:
    """From features to predictions."""

    name: Literal["prototype", "cosine", "linear", "ridge", "regression"] = "prototype"
    """Classifier, or regression for curves."""
    scale: float | None = None
    """First value of the learned factor on the logits; empty: the head's own."""

    def check(self) -> Iterator[Problem]:
        yield from above(self, 0, "scale")


@dataclass(frozen=True)
class Inner:
    """The inner loop: gradient steps on the deviations alone."""

    steps: int = 0
    """Steps per task in training; 0: no inner loop."""
    evaluation_steps: int | None = None
    """Steps per task in evaluation; empty: as in training."""
    step_size: float = 0.1
    """First value of the step sizes."""
    learn_step_size: bool = True
    """Train the step sizes in the outer loop."""
    granularity: Literal["site", "feature"] = "site"
    """One step size per site, or one per feature map."""
    per_step: bool = True
    """Step sizes of their own for each step."""
    first_order: bool = False
    """Treat the inner gradient as a constant: cheaper, a little less accurate."""
    views: int = 1
    """Augmented copies of the support held out in the inner loss; 0: the support itself."""
    view_augment: str = "shift"
    """Augmentation that makes the views, by name."""
    start: float = 0.0
    """Fraction of the outer iterations after which the inner loop is switched on."""

    def check(self) -> Iterator[Problem]:
        yield from at_least(self, 0, "steps", "evaluation_steps", "views")
        yield from above(self, 0, "step_size")
        yield from known(self.view_augment, "view_augment", augment.BY_NAME)
        yield from between(self, 0, 1, "start")


@dataclass(frozen=True)
class Outer:
    """The outer loop: everything learns."""

    iterations: int = 10000
    """Optimiser steps."""
    meta_batch: int = 4
    """Tasks per optimiser step."""
    task_chunk: int | None = None
    """Tasks whose support sets go through the inner loop together; gradients add up over the chunks of a
    meta-batch. Empty: measured at the start of the run."""
    query_chunk: int | None = None
    """Tasks whose query sets go through the network together; empty: measured with task_chunk, or equal to
    it."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 5e-4
    """Weight decay of backbone and head."""
    encoder_learning_rate: float | None = None
    """Peak learning rate of the task encoder; empty: the same."""
    encoder_weight_decay: float = 1e-4
    """Weight decay of the task encoder."""
    warmup: int = 500
    """Iterations of linear warm-up (cut to the number of iterations in a shorter run)."""
    final_learning_rate: float = 0.0
    """Learning rate at the end of the cosine, as a fraction of the peak."""
    clip_norm: float = 10.0
    """Largest norm of the whole gradient; 0: no clipping."""
    penalty: float = 0.01
    """Weight of the mean squared deviation (over tasks and features) in the outer loss."""
    auxiliary: float = 0.0
    """Weight of the cross entropy over all training classes."""
    average: float = 0.0
    """Decay of the moving average of the weights; 0: none."""
    compile: bool = False
    """Run each task through torch.compile: one or two minutes at the start, needs a C++ compiler."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the backbone in training; validation is always float32."""

    def check(self) -> Iterator[Problem]:
        yield from at_least(self, 1, "iterations", "meta_batch", "task_chunk", "query_chunk")
        yield from above(self, 0, "learning_rate", "encoder_learning_rate")
        yield from at_least(self, 0, "weight_decay", "encoder_weight_decay", "warmup", "clip_norm")
        yield from at_least(self, 0, "penalty", "auxiliary")
        yield from between(self, 0, 1, "final_learning_rate")
        if not 0 <= self.average < 1:
            yield "average", f"must be at least 0 and below 1, is {self.average}"
        for name in ("task_chunk", "query_chunk"):
            value = getattr(self, name)
            if value is not None and value > self.meta_batch >= 1:
                yield name, f"must not exceed --outer.meta_batch ({self.meta_batch}), is {value}"


@dataclass(frozen=True)
class Evaluation:
    """Validation during training, and the checkpoints."""

    every: int = free(500)
    """Iterations between validations."""
    episodes: int = 200
    """Validation tasks."""
    ways: int | None = None
    """Classes in a validation task; empty: as in training (the low end of a range)."""
    shots: int | None = None
    """Support images per class; empty: as in training (the low end of a range)."""
    queries: int | None = None
    """Query images per class; empty: as in training."""
    checkpoint_every_seconds: float = free(60.0)
    """Seconds between checkpoints: what a killed run loses at most."""

    def check(self) -> Iterator[Problem]:
        yield from at_least(self, 1, "every", "shots", "queries")
        yield from at_least(self, 2, "episodes", "ways")
        yield from at_least(self, 0, "checkpoint_every_seconds")


@dataclass(frozen=True)
class Tracking:
    """Where metrics go besides the run directory."""

    wandb: Literal["disabled", "offline", "online"] = free("disabled")
    """Weights & Biases; offline needs no network and no account."""
    project: str = free("metafilm")
    """Its project."""

    def check(self) -> Iterator[Problem]:
        if not self.project:
            yield "project", "must not be empty"


def at_least(section: Any, low: float, *names: str) -> Iterator[Problem]:
    for name in names:
        value = getattr(section, name)
        ends = value if isinstance(value, tuple) else (value,)
        if value is not None and min(ends) < low:
            yield name, f"must be at least {low}, is {' '.join(map(str, ends))}"


def above(section: Any, low: float, *names: str) -> Iterator[Problem]:
    for name in names:
        value = getattr(section, name)
        if value is not None and not value > low:
            yield name, f"must be above {low}, is {value}"


def between(section: Any, low: float, high: float, *names: str) -> Iterator[Problem]:
    for name in names:
        value = getattr(section, name)
        if not low <= value <= high:
            yield name, f"must be between {low} and {high}, is {value}"


def known(value: str, name: str, choices: Iterable[str]) -> Iterator[Problem]:
    if value not in choices:
        yield name, f"{value} is unknown{close_match(value, choices)}"
