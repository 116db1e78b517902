"""Strokes on a dark ground or on a light one: what weights were trained on, and what a set of pictures is."""

from __future__ import annotations

import torch
from torch import Tensor

from episodes import DATASETS
from metafilm.learner.network import SharedNetwork

# Mean brightness of training pictures that are strokes on a plain ground; photographs lie near 0.45.
DARK, LIGHT = 0.25, 0.75
# Least mean of `ground` over a set of pictures to call it a plain ground. Drawings have 0.7 and more, five
# photographs at most 0.5 (miniImageNet's validation classes).
PLAIN = 0.6


def trained_ground(network: SharedNetwork) -> str | None:
    """What the training pictures' strokes lie on: ``dark`` or ``light``; None for pictures of other kinds.

    Read from the mean brightness that the learner normalises by; where it normalises by none (a pre-trained
    network does so itself), from the data sets that its settings name. Colour pictures are of other kinds.
    """
    if network.image_shape[0] != 1 or len(network.image_shape) != 3:
        return None
    mean, std = float(network.mean.mean()), float(network.std.mean())
    if (mean, std) != (0.0, 1.0):
        return "dark" if mean < DARK else "light" if mean > LIGHT else None
    names = network.config.data.names if network.config is not None else ()
    drawn = bool(names) and all(name in DATASETS and DATASETS[name].ink for name in names)
    return "dark" if drawn else None


def mismatched(network: SharedNetwork, images: Tensor) -> bool:
    """Whether these pictures as a whole are strokes on the other ground than those trained on.

    Args:
        images: ``[n, C, H, W]`` uint8, or floats in [0, 1].
    """
    trained = trained_ground(network)
    if trained is None or not len(images):
        return False
    found = float(ground(images).mean())
    return found > PLAIN if trained == "dark" else found < -PLAIN


def complaint(network: SharedNetwork, count: int) -> str:
    """What is wrong with so many pictures that are :func:`mismatched`."""
    light, dark = "dark strokes on a light ground", "light strokes on a dark ground"
    seen, trained = (light, dark) if trained_ground(network) == "dark" else (dark, light)
    return f"the {count} pictures look like {seen}, and these weights were trained on {trained}"


def ground(images: Tensor) -> Tensor:
    """How light the ground of each picture is among its own tones, ``[n, C, H, W]`` -> ``[n]`` in [-1, 1].

    Where the median lies between nearly the darkest and nearly the lightest pixel. Strokes cover less than
    half of a picture, so that 1 is a light ground and -1 a dark one, however weak the contrast; photographs
    lie between.
    """
    values = images.to(torch.float32).flatten(1)
    low, middle, high = torch.quantile(values, values.new_tensor([0.02, 0.5, 0.98]), dim=1)
    return (2 * middle - low - high) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
