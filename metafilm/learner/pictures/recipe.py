"""Anybody's pictures as a learner's own training data were: size, channels, orientation, polarity."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metafilm.errors import MetafilmError
from metafilm.learner.network import SharedNetwork
from metafilm.learner.pictures.arrays import ends, parts_of, require_range, stacked
from metafilm.learner.pictures.polarity import complaint, mismatched

INVERT = ("auto", "yes", "no")


@dataclass(frozen=True)
class Recipe:
    """How a set of pictures was brought to a learner's form, for other pictures of the same origin.

    Attributes:
        inverted: light and dark changed places.
        black, white: the values of black and white in arrays other than uint8.
    """

    inverted: bool = False
    black: float = 0.0
    white: float = 1.0


def preprocess(
    network: SharedNetwork, pictures: Any, *, invert: str = "auto", recipe: Recipe | None = None
) -> tuple[Tensor, Recipe]:
    """See :meth:`metafilm.MetaFiLM.preprocess`."""
    if invert not in INVERT:
        raise MetafilmError(f"invert is {invert!r}; expected {', '.join(INVERT)}")
    if network.regression or len(network.image_shape) != 3:
        raise MetafilmError(
            f"this learner takes {network.image_shape[0]} numbers, not pictures; use a learner of pictures"
        )
    shape = (network.image_shape[0], network.image_shape[1], network.image_shape[2])
    parts = parts_of(pictures, shape, told=recipe is not None)
    if recipe is None:
        recipe = Recipe(False, *ends(parts))
        images = stacked(parts, shape, recipe.black, recipe.white)
        wrong = invert == "yes" or (invert == "auto" and mismatched(network, images))
        if wrong and invert == "auto":
            warnings.warn(
                f"{complaint(network, len(images))}: they are inverted; invert='no' (--invert no) leaves "
                "them as they are",
                stacklevel=3,
            )
        recipe = replace(recipe, inverted=wrong)
    else:
        require_range(parts, recipe.white)
        images = stacked(parts, shape, recipe.black, recipe.white)
    if recipe.inverted:
        images = 255 - images if images.dtype == torch.uint8 else 1 - images
    return images, recipe
