"""Drawings as another hand would have made them: bent, slanted, with a thicker or a thinner pen."""

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from episodes.errors import EpisodesError
from episodes.transforms.affine import Affine
from episodes.transforms.bending import Bending
from episodes.transforms.protocols import checked


class Handwriting:
    """A random bend (:class:`episodes.transforms.bending.Bending`), then a stroke that is thicker or thinner.

    affine, bend, nodes: the bend's. thickness: how far, from 0 to 1, an image is moved to its dilation or its
    erosion by a pixel at most. What comes in from outside is black.

    Raises EpisodesError for what is out of range.
    """

    def __init__(
        self,
        affine: Affine | None = None,
        bend: float = 0.08,
        nodes: int = 5,
        thickness: float = 0.5,
    ) -> None:
        if not 0 <= thickness <= 1:
            raise EpisodesError(f"Handwriting got thickness {thickness}: choose one from 0 to 1")
        affine = affine or Affine(degrees=15.0, translate=0.1, scale=0.2, shear=15.0)
        self.bending, self.thickness = Bending(affine, bend, nodes), thickness
        self.num_uniforms = self.bending.num_uniforms + 1

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """images [B, C, H, W], uniforms [B, 5 + 2 x nodes^2 + 1] -> [B, C, H, W]."""
        uniforms = checked(images, uniforms, self.num_uniforms).to(images.dtype)
        places = self.bending.places(uniforms[:, :-1], *images.shape[-2:])
        moved = F.grid_sample(images, places, mode="bilinear", padding_mode="zeros", align_corners=False)
        amount = (self.thickness * (2 * uniforms[:, -1] - 1)).view(-1, 1, 1, 1)
        sign = torch.where(amount < 0, -1.0, 1.0).to(moved.dtype)  # the least is what is greatest negated
        return moved + amount.abs() * (sign * _greatest_around(sign * moved) - moved)


def _greatest_around(images: Tensor) -> Tensor:
    """Of each pixel and the eight around it, outside being 0. Several times as fast as max_pool2d."""
    padded = F.pad(images, (1, 1, 1, 1))
    rows = torch.maximum(torch.maximum(padded[..., :-2, :], padded[..., 2:, :]), padded[..., 1:-1, :])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 2:]), rows[..., 1:-1])
