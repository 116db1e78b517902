"""Drawings as another hand would have made them: bent, slanted, with a thicker or a thinner pen."""

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from episodes.errors import EpisodesError
from episodes.transforms.affine import Affine
from episodes.transforms.protocols import checked


class Handwriting:
    """An affine map with a smooth random displacement on it (Simard et al., ICDAR 2003), then a stroke that
    is thicker or thinner.

    affine: the map. bend: the farthest displacement, as a fraction of each side, of any of nodes x nodes
    points, between which it changes smoothly. thickness: how far, from 0 to 1, an image is moved to its
    dilation or its erosion by a pixel at most. What comes in from outside is black.

    Raises EpisodesError for what is out of range.
    """

    def __init__(
        self,
        affine: Affine | None = None,
        bend: float = 0.08,
        nodes: int = 5,
        thickness: float = 0.5,
    ) -> None:
        if bend < 0 or nodes < 2 or not 0 <= thickness <= 1:
            raise EpisodesError(
                f"Handwriting got bend {bend}, nodes {nodes}, thickness {thickness}: choose a bend of 0 or "
                "more, 2 nodes or more, a thickness from 0 to 1"
            )
        self.affine = affine or Affine(degrees=15.0, translate=0.1, scale=0.2, shear=15.0)
        self.bend, self.nodes, self.thickness = bend, nodes, thickness
        self.num_uniforms = self.affine.num_uniforms + 2 * nodes**2 + 1

    def places(self, uniforms: Tensor, height: int, width: int) -> Tensor:
        """Where each pixel comes from: [B, H, W, 2], right and down from -1 to 1, for uniforms
        [B, num_uniforms].

        All is linear in what is drawn: the map in a pixel's own place, the displacement in those of the
        nodes, of which it is a mean, weighted by a Gaussian of their distance.
        """
        first = self.affine.num_uniforms
        bends = 2 * self.bend * (2 * uniforms[:, first:-1] - 1)
        drawn = torch.cat((self.affine.matrices(uniforms[:, :first]), bends.unflatten(1, (2, -1))), 2)
        down, right = (self._weights(side, drawn) for side in (height, width))
        y, x = ((2 * torch.arange(side).to(drawn) + 1) / side - 1 for side in (height, width))
        x, y = x.expand(height, -1), y[:, None].expand(-1, width)
        nodes = torch.einsum("hi,wj->ijhw", down, right).flatten(0, 1)
        basis = torch.cat((torch.stack((x, y, torch.ones_like(x))), nodes))
        found = drawn.flatten(0, 1) @ basis.flatten(1)
        return found.view(-1, 2, height, width).permute(0, 2, 3, 1)

    def _weights(self, side: int, like: Tensor) -> Tensor:
        """The nodes', which lie from edge to edge, at a side's pixels: [side, nodes], rows sum to 1."""
        places = (torch.arange(side).to(like) + 0.5) / side
        apart = (places[:, None] - torch.linspace(0, 1, self.nodes).to(like)) * (self.nodes - 1)
        return (-2 * apart**2).softmax(1)

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """images [B, C, H, W], uniforms [B, 5 + 2 x nodes^2 + 1] -> [B, C, H, W]."""
        uniforms = checked(images, uniforms, self.num_uniforms).to(images.dtype)
        places = self.places(uniforms, *images.shape[-2:])
        moved = F.grid_sample(images, places, mode="bilinear", padding_mode="zeros", align_corners=False)
        amount = (self.thickness * (2 * uniforms[:, -1] - 1)).view(-1, 1, 1, 1)
        sign = torch.where(amount < 0, -1.0, 1.0).to(moved.dtype)  # the least is what is greatest negated
        return moved + amount.abs() * (sign * _greatest_around(sign * moved) - moved)


def _greatest_around(images: Tensor) -> Tensor:
    """Of each pixel and the eight around it, outside being 0. Several times as fast as max_pool2d."""
    padded = F.pad(images, (1, 1, 1, 1))
    rows = torch.maximum(torch.maximum(padded[..., :-2, :], padded[..., 2:, :]), padded[..., 1:-1, :])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 2:]), rows[..., 1:-1])
