"""The section that says how the backbone is trained before the outer loop."""

from typing import Annotated, Literal

from episodes.transforms import augment as augmentations
from episodes.transforms import styles
from metafilm.config.settings.checks import (
    Number,
    OneOf,
    Text,
    Whole,
    above,
    at_least,
    from_up_to,
)
from metafilm.config.strict import section


@section("pretrain")
class Pretrain:
    """Before the outer loop: the plain backbone (δ = 0) learns to tell all training classes apart, by SGD
    with Nesterov's momentum and a classifier that is thrown away in the end. Its kind, label smoothing,
    augment and style are those of outer.plain too.
    """

    iterations: Annotated[Whole, at_least(0)] = 0
    """Optimiser steps; 0: no pre-training."""
    batch: Annotated[Whole, at_least(4)] = 128
    """Images a step, as evenly over the training classes as they go."""
    image_sizes: tuple[Annotated[Whole, at_least(16)], ...] = ()
    """Sides in pixels that images are brought to, each for an equal part of the steps, such as 64 64 84;
    smaller ones cost less. The last should be the tasks' own. Empty: as they come."""
    learning_rate: Annotated[Number, above(0)] = 0.1
    """Peak learning rate: linear warm-up over a twentieth of the steps, then a cosine to zero."""
    momentum: Annotated[Number, from_up_to(0, 1)] = 0.9
    """Nesterov's momentum."""
    weight_decay: Annotated[Number, at_least(0)] = 5e-4
    """Weight decay of kernels and matrices."""
    average: Annotated[Number, from_up_to(0, 1)] = 0.0
    """Decay of the moving average of the weights, which the stage ends with; 0: none."""
    classifier: Literal["linear", "cosine", "reconstruction"] = "linear"
    """A linear map of the features; a factor times their cosine with a vector for each class, which wants a
    learning rate some ten times larger; or, for heads of cells, a factor times how badly cells learned for
    each class rebuild an image's."""
    scale: Annotated[Number, above(0)] = 10.0
    """First value of the factor of the cosine and of the reconstruction classifier, which is learned."""
    label_smoothing: Annotated[Number, from_up_to(0, 1)] = 0.0
    """Share of each target that goes evenly to all classes."""
    augment: Annotated[Text, OneOf(augmentations.BY_NAME)] = "none"
    """Augmentation of every image."""
    style: Annotated[Text, OneOf(styles.BY_NAME)] = "none"
    """Transform drawn once per step and applied to all its images."""
