"""An affine map of images against one pixel by pixel."""

import math

import numpy as np
import torch

from episodes.transforms.affine import Affine


def forward_matrix(u: list[float], affine: Affine, height: int, width: int) -> np.ndarray:
    """Input to output pixel places about the centre: move o rotate o shear o scale."""
    angle, right, down, scale, shear = (2 * v - 1 for v in u)
    angle, shear = math.radians(affine.degrees * angle), math.radians(affine.shear * shear)
    move = np.array(
        [[1, 0, affine.translate * right * width], [0, 1, affine.translate * down * height], [0, 0, 1]]
    )
    rotate = np.array(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    )
    shearing = np.array([[1, math.tan(shear), 0], [0, 1, 0], [0, 0, 1]])
    scaling = np.diag([1 + affine.scale * scale, 1 + affine.scale * scale, 1])
    return move @ rotate @ shearing @ scaling


def test_affine_samples_each_image_through_the_inverse_of_its_map():
    affine = Affine(degrees=40, translate=0.2, scale=0.3, shear=25)
    images, uniforms = torch.rand(5, 2, 9, 9), torch.rand(5, 5, dtype=torch.float64)
    expected = torch.zeros_like(images)
    for b, u in enumerate(uniforms.tolist()):
        inverse = np.linalg.inv(forward_matrix(u, affine, 9, 9))
        for y in range(9):
            for x in range(9):
                sx, sy, _ = inverse @ (x - 4, y - 4, 1) + (4, 4, 0)
                for ty in (math.floor(sy), math.floor(sy) + 1):
                    for tx in (math.floor(sx), math.floor(sx) + 1):
                        if 0 <= ty < 9 and 0 <= tx < 9:
                            weight = (1 - abs(sx - tx)) * (1 - abs(sy - ty))
                            expected[b, :, y, x] += weight * images[b, :, ty, tx]
    torch.testing.assert_close(affine(images, uniforms), expected, atol=1e-4, rtol=0)


def test_affine_at_the_middle_of_every_range_changes_nothing():
    images = torch.rand(7, 3, 10, 12)
    torch.testing.assert_close(Affine()(images, torch.full((7, 5), 0.5)), images, atol=1e-5, rtol=0)
