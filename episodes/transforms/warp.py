"""A warp per episode: characters that no alphabet has, made of those that there are."""

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from episodes.transforms.affine import Affine
from episodes.transforms.bending import Bending
from episodes.transforms.protocols import Transform, checked_tasks


class Warp:
    """A per-episode transform: all images of a task mirrored or not, slanted and bent alike.

    What tells a task's characters apart is then another thing in each task, while they stay as different
    from each other as they were: augmentation of tasks (Liu et al., "Task augmentation by rotating for
    meta-learning", 2020, arXiv:2003.00804, with turns), not of images. What comes in from outside is black.

    before: a style that comes first, with the first columns of the uniforms. bending: how far; strong,
    compared with what one hand does to one character.
    """

    def __init__(self, before: Transform | None = None, bending: Bending | None = None) -> None:
        slant = Affine(degrees=20.0, translate=0.0, scale=0.2, shear=30.0)
        self.before, self.bending = before, bending or Bending(slant, bend=0.15, nodes=4)
        self.first = before.num_uniforms if before is not None else 0
        self.num_uniforms = self.first + self.bending.num_uniforms + 1  # the last: mirrored from 0.5 on

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """Images [T, n, C, H, W] float32 in [0, 1], uniforms [T, num_uniforms] -> new images of the same
        shape."""
        uniforms = checked_tasks(images, uniforms, self.num_uniforms, "Warp bends")
        if self.before is not None:
            images = self.before(images, uniforms[:, : self.first])
        uniforms = uniforms[:, self.first :].to(images.dtype)
        places = self.bending.places(uniforms[:, :-1], *images.shape[-2:])
        side = torch.where(uniforms[:, -1] < 0.5, 1.0, -1.0).to(places.dtype)
        places = places * torch.stack((side, torch.ones_like(side)), -1)[:, None, None]
        warped = F.grid_sample(
            images.flatten(1, 2), places, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        return warped.view(images.shape)
