"""Sections that say how a learner is trained: the two loops, validation, and where metrics go."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator

from episodes.transforms import augment
from metafilm.config.settings.checks import (
    Number,
    OneOf,
    Switch,
    Text,
    Whole,
    above,
    at_least,
    between,
    from_up_to,
)
from metafilm.config.strict import free, section
from metafilm.engine.steps import OPTIMISERS


def not_empty(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


@section("inner")
class Inner:
    """The inner loop: gradient steps on the deviations alone (or, to compare, on all weights)."""

    steps: Annotated[Whole, at_least(0)] = 0
    """Steps per task in training; 0: no inner loop."""
    evaluation_steps: Annotated[Whole | None, at_least(0)] = None
    """Steps per task in evaluation; empty: as in training."""
    step_size: Annotated[Number, above(0)] = 0.1
    """First value of the step sizes."""
    learn_step_size: Switch = True
    """Train the step sizes in the outer loop."""
    granularity: Literal["site", "feature"] = "site"
    """One step size per site, or one per feature map."""
    per_step: Switch = True
    """Step sizes of their own for each step."""
    adapts: Literal["film", "all"] = "film"
    """What steps move: the deviations; all: the backbone's own weights in their place, as MAML does, one task
    at a time. Such a learner is trained and scored, to compare; its tasks can't be kept or exported."""
    first_order: Switch = False
    """Treat the inner gradient as a constant: cheaper, a little less accurate."""
    views: Annotated[Whole, at_least(0)] = 1
    """Augmented copies of the support held out in the inner loss; 0: the support itself."""
    view_augment: Annotated[Text, OneOf(augment.BY_NAME)] = "shift"
    """Augmentation that makes the views, by name."""
    optimiser: Annotated[Text, OneOf(OPTIMISERS)] = "sgd"
    """Plain gradient steps, or Adam's, equally large at every site; adam wants a step size near 0.001."""
    proximal: Annotated[Number, at_least(0)] = 0.0
    """Weight of half the squared distance from the first deviations, added to each task's inner loss."""
    batch: Annotated[Whole | None, at_least(1)] = None
    """Support images of each class that a step is taken on, the next ones with each step; empty: all. With
    many shots a step then takes the time and memory of so many."""
    gate: Switch = False
    """In evaluation, let held-out support images decide for each task how many steps are taken, if any, and
    whether from the task encoder's deviations; at most three times the work."""
    start: Annotated[Number, between(0, 1)] = 0.0
    """Fraction of the outer iterations after which the inner loop is switched on."""


@section("outer.rates")
class Rates:
    """A factor on the learning rate of each part; a part that keeps its weights stands in outer.freeze."""

    backbone: Annotated[Number, above(0)] = 1.0
    """Factor for the shared network; a tenth is usual for a pre-trained one."""
    encoder: Annotated[Number, above(0)] = 1.0
    """Factor for the task encoder, on outer.encoder_learning_rate where that is set."""
    head: Annotated[Number, above(0)] = 1.0
    """Factor for the head's scales and weights."""
    inner: Annotated[Number, above(0)] = 1.0
    """Factor for the inner loop's step sizes."""


@section("outer")
class Outer:
    """The outer loop: everything learns."""

    iterations: Annotated[Whole, at_least(1)] = 10000
    """Optimiser steps."""
    meta_batch: Annotated[Whole, at_least(1)] = 4
    """Tasks per optimiser step."""
    one_domain: Switch = False
    """Draw all tasks of a meta-batch from one data set of a mixture."""
    task_chunk: Annotated[Whole | None, at_least(1)] = None
    """Tasks whose support sets go through the inner loop together; gradients add up over the chunks of a
    meta-batch. Empty: measured at the start of the run."""
    query_chunk: Annotated[Whole | None, at_least(1)] = None
    """Tasks whose query sets go through the network together; empty: measured with the task chunk, or
    equal to it."""
    freeze: tuple[Literal["backbone", "encoder", "head", "inner"], ...] = ()
    """Parts that keep their weights, for example a pre-trained backbone; they cost no gradient."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov's momentum, which wants a learning rate some fifty times larger."""
    momentum: Annotated[Number, from_up_to(0, 1)] = 0.9
    """Of sgd."""
    learning_rate: Annotated[Number, above(0)] = 1e-3
    """Peak learning rate."""
    rates: Rates = field(default_factory=Rates)
    weight_decay: Annotated[Number, at_least(0)] = 5e-4
    """Weight decay of backbone and head."""
    encoder_learning_rate: Annotated[Number | None, above(0)] = None
    """Peak learning rate of the task encoder; empty: the same."""
    encoder_weight_decay: Annotated[Number, at_least(0)] = 1e-4
    """Weight decay of the task encoder."""
    warmup: Annotated[Whole, at_least(0)] = 500
    """Iterations of linear warm-up (cut to the number of iterations in a shorter run)."""
    final_learning_rate: Annotated[Number, between(0, 1)] = 0.0
    """Learning rate at the end of the cosine, as a fraction of the peak."""
    clip_norm: Annotated[Number, at_least(0)] = 10.0
    """Largest norm of the whole gradient; 0: no clipping."""
    penalty: Annotated[Number, at_least(0)] = 0.01
    """Weight of the mean squared deviation (over tasks and features) in the outer loss."""
    auxiliary: Annotated[Number, at_least(0)] = 0.0
    """Weight of the cross entropy over all training classes."""
    label_smoothing: Annotated[Number, from_up_to(0, 1)] = 0.0
    """Share of each target that goes evenly to all classes, in the cross entropies of queries and of the
    auxiliary classifier; support losses know none."""
    plain: Annotated[Whole, at_least(0)] = 0
    """Images of all training classes beside the tasks of each step, augmented and told apart as the pretrain
    section says, by its classifier where that stage ran; 0: none."""
    plain_weight: Annotated[Number, above(0)] = 1.0
    """Weight of their cross entropy, which is taken at δ = 0; that of the tasks is 1."""
    film_noise: Annotated[Number, at_least(0)] = 0.0
    """Strength of random gains and shifts at the film sites in training, one draw a task: standard deviations
    of 0.3 and 0.5 at 1; they make what is learned hold for more domains."""
    domain: Annotated[Number, at_least(0)] = 0.0
    """Weight of the cross entropy of a linear classifier that tells from the task vector which data set of a
    mixture a task is of."""
    average: Annotated[Number, from_up_to(0, 1)] = 0.0
    """Decay of the moving average of the weights; 0: none."""
    compile: Switch = False
    """Run each task through torch.compile: one or two minutes at the start, needs a C++ compiler."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the backbone in training, and of a cosine classifier of all training classes;
    validation has one of its own."""


@section("evaluation")
class Evaluation:
    """Validation during training, and the checkpoints."""

    every: Annotated[Whole, at_least(1)] = 500
    """Iterations between validations, of which the best one's weights are kept."""
    episodes: Annotated[Whole, at_least(2)] = 200
    """Validation tasks."""
    ways: Annotated[Whole | None, at_least(2)] = None
    """Classes in a validation task; empty: as in training (the low end of a range)."""
    shots: Annotated[Whole | None, at_least(1)] = None
    """Support images per class; empty: as in training (the low end of a range)."""
    queries: Annotated[Whole | None, at_least(1)] = None
    """Query images per class; empty: as in training."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the backbone in validation; metafilm eval is told by itself."""
    copies: Annotated[Whole, at_least(0)] = 0
    """Augmented copies of each support image that the head is fitted to as well, in every evaluation."""
    copy_augment: Annotated[Text, OneOf(augment.BY_NAME)] = "shift"
    """Augmentation that makes them, by name."""
    query_copies: Annotated[Whole, at_least(0)] = 0
    """Copies of each query image by the same augmentation, whose logits are averaged with its own, in every
    evaluation and prediction; the support's copies are then made by the same transformations."""
    adapt: Literal["auto", "always", "encoder", "never"] = "auto"
    """How far the trained learner adapts to a task where nobody says otherwise: always, by the encoder alone,
    never; auto: no further than validation finds clearly better (a gate judges for itself: always)."""
    checkpoint_every_seconds: Annotated[Number, at_least(0)] = free(60.0)
    """Seconds between checkpoints: what a killed run loses at most."""


@section("tracking")
class Tracking:
    """Where metrics go besides the run directory."""

    wandb: Literal["disabled", "offline", "online"] = free("disabled")
    """Weights & Biases; offline needs no network and no account."""
    project: Annotated[Text, AfterValidator(not_empty)] = free("metafilm")
    """Its project."""
