"""Turned, moved, scaled and sheared images."""

import math

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from episodes.errors import EpisodesError
from episodes.transforms.protocols import checked


class Affine:
    """A random rotation, scaling, shear and translation about the centre, bilinear; what comes in is black.

    degrees: the largest rotation either way. translate: the largest move as a fraction of the side.
    scale: sizes from 1 - scale to 1 + scale. shear: the largest shear angle in degrees.
    """

    num_uniforms = 5

    def __init__(
        self, degrees: float = 10.0, translate: float = 0.1, scale: float = 0.1, shear: float = 10.0
    ) -> None:
        if not 0 <= scale < 1:
            raise EpisodesError(f"Affine(scale) is {scale}: choose a number from 0 up to 1, 1 excluded")
        if min(degrees, translate, shear) < 0 or shear >= 90:
            raise EpisodesError(
                f"Affine got degrees {degrees}, translate {translate}, shear {shear}: none may be negative, "
                "shear must be below 90"
            )
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear

    def matrices(self, uniforms: Tensor) -> Tensor:
        """The map from output to input places, in coordinates from -1 to 1: [B, 2, 3] for uniforms [B, 5].

        Columns of `uniforms`: rotation, move right, move down, scale, shear.
        """
        signed = 2 * uniforms - 1
        angle, shear = (
            math.radians(a) * u for a, u in ((self.degrees, signed[:, 0]), (self.shear, signed[:, 4]))
        )
        # A coordinate step of 2 is the whole side, hence the factor.
        right, down = 2 * self.translate * signed[:, 1], 2 * self.translate * signed[:, 2]
        cos, sin, tan, size = angle.cos(), angle.sin(), shear.tan(), 1 + self.scale * signed[:, 3]
        # Output = move o rotate o shear o scale (input); the inverse, written out, is what sampling needs.
        a, b = (cos + tan * sin) / size, (sin - tan * cos) / size
        c, d = -sin / size, cos / size
        rows = [a, b, -(a * right + b * down), c, d, -(c * right + d * down)]
        return torch.stack(rows, dim=1).reshape(-1, 2, 3)

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """images [B, C, H, W], uniforms [B, 5] -> [B, C, H, W]. The move is a fraction of each side."""
        uniforms = checked(images, uniforms, self.num_uniforms)
        matrices = self.matrices(uniforms).to(images.dtype)
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
