"""A small U-Net for flows, all of whose norms are FiLM sites, and what conditions it: a time and a class.

Its pictures are halved by stacking every two by two pixels as features, so that the largest maps have half
the side: 28 x 28 pixels are 14 x 14 places.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.conditioning import ConditionNetwork, sinusoid
from metafilm.conditioning.classes import pick
from metafilm.film import FilmDict


class Residual(nn.Module):
    """Norm, SiLU, convolution, twice, beside the way past them. The norms have no affine of their own."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (nn.GroupNorm(8, size, affine=False) for size in (before, after))
        self.conv_1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv_2 = nn.Conv2d(after, after, 3, padding=1)
        self.past = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x)))
        return self.past(x) + self.conv_2(F.silu(self.norm_2(h)))


class UNet(nn.Module):
    """``[B, 1, S, S]`` -> the same shape; S a multiple of 4, width one of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(4, width, 3, padding=1)
        self.before = nn.Sequential(Residual(width, width), Residual(width, width))
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.middle = nn.Sequential(
            Residual(width, 2 * width), Residual(2 * width, 2 * width), Residual(2 * width, 2 * width)
        )
        self.after = nn.Sequential(Residual(3 * width, width), Residual(width, width))
        self.norm = nn.GroupNorm(8, width, affine=False)
        self.exit = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.before(self.entry(F.pixel_unshuffle(x, 2)))
        coarse = F.interpolate(self.middle(self.down(fine)), scale_factor=2)
        h = self.after(torch.cat((coarse, fine), 1))
        return F.pixel_shuffle(self.exit(F.silu(self.norm(h))), 2)


class TimeAndClass(ConditionNetwork):
    """A time from 0 to 1 and a class -> deviations, of the sum of a vector each (DiT: Peebles and Xie, ICCV
    2023, arXiv:2212.09748). The class's vector reaches them by linear maps alone where depth is 0 and the
    decoder linear, as BigGAN's do.

    Args:
        classes: how many there are; a number more stands for no class.
        depth: layers that the sum goes through before the decoder, the same for all sites (StyleGAN's).
        generation: as :meth:`ConditionNetwork.generate` takes it: ``decoder`` ...
    """

    kind = "time and class encoder"

    def __init__(
        self, classes: int, sites: dict[str, int], width: int = 128, depth: int = 0, **generation: Any
    ) -> None:
        super().__init__()
        self.classes = classes
        self.vectors = nn.Parameter(torch.randn(classes + 1, width))
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.trunk = nn.Sequential()
        for _ in range(depth):
            self.trunk.extend((nn.Linear(width, width), nn.SiLU()))
        self.generate(sites, width, **generation)

    def forward(self, time: Tensor, labels: Tensor) -> FilmDict:
        """``[B]`` floats and ``[B]`` int64 -> deviations, ``[B, C]`` each."""
        of_class = pick(self.vectors, labels, self.classes + 1)
        return self.decode(self.trunk(self.time(sinusoid(1000 * time, 64)) + of_class))
