"""Where the pixels of a bent picture come from."""

import torch
from torch import Tensor

from episodes.errors import EpisodesError
from episodes.transforms.affine import Affine


class Bending:
    """An affine map with a smooth random displacement on it (Simard et al., ICDAR 2003).

    affine: the map. bend: the farthest displacement, as a fraction of each side, of any of nodes x nodes
    points, between which it changes smoothly.

    Raises EpisodesError for what is out of range.
    """

    def __init__(self, affine: Affine, bend: float, nodes: int) -> None:
        if not bend >= 0 or nodes < 2:
            raise EpisodesError(
                f"Bending got bend {bend}, nodes {nodes}: choose a bend of 0 or more, 2 nodes or more"
            )
        self.affine, self.bend, self.nodes = affine, bend, nodes
        self.num_uniforms = affine.num_uniforms + 2 * nodes**2

    def places(self, uniforms: Tensor, height: int, width: int) -> Tensor:
        """Where each pixel comes from: [B, H, W, 2], right and down from -1 to 1, for uniforms
        [B, num_uniforms].

        All is linear in what is drawn: the map in a pixel's own place, the displacement in those of the
        nodes, of which it is a mean, weighted by a Gaussian of their distance.
        """
        first = self.affine.num_uniforms
        bends = 2 * self.bend * (2 * uniforms[:, first:] - 1)
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
