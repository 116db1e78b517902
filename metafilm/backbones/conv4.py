"""Conv-4, the four-block network of the few-shot literature (Vinyals et al. 2016; Snell et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from metafilm.engine.convolution import Conv2d
from metafilm.errors import MetafilmError
from metafilm.norms import Measured, Norm


class Block(nn.Module):
    """3×3 convolution, norm, 2×2 max-pooling, ReLU: the usual norm, ReLU, pooling in an order that gives the
    same numbers on a quarter of the maps.
    """

    def __init__(self, in_channels: int, width: int, norm: str) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = Norm(width, norm)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()

    def measure(self, x: Tensor) -> Measured:
        """What the block computes before its FiLM site."""
        return self.norm.measure(x, self.conv)

    def forward(self, x: Tensor | Measured) -> Tensor:
        """``x``: maps, or what :meth:`measure` made of them."""
        # exported as a plain network, or traced by the compiler, which fuses these by itself
        if not isinstance(self.norm, Norm) or (torch.compiler.is_compiling() and isinstance(x, Tensor)):
            return self.relu(self.pool(self.norm(self.conv(x))))
        return self.norm.finish(x if isinstance(x, Measured) else self.measure(x))


class Stem(NamedTuple):
    """The blocks before ``block`` done, and that one up to its FiLM site."""

    block: int
    maps: Tensor | Measured


class Conv4(nn.Module):
    """Four blocks of ``width`` maps.

    Args:
        image_shape: ``(C, H, W)`` of the images; at least 16×16.
        width: feature maps per block (64 in Snell et al.; CAVIA uses up to 512).
        norm: norm mode (:mod:`metafilm.norms`).

    Raises:
        MetafilmError: smaller images, or an unknown norm mode.

    ``[B, C, H, W]`` in, ``[B, out_features]`` out: 64 for 28×28 images, 1,600 for 84×84.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int = 64, norm: str = "running") -> None:
        super().__init__()
        self.arguments = {"image_shape": list(image_shape), "width": width, "norm": norm}
        channels, height, breadth = image_shape
        if min(height, breadth) < 16:
            raise MetafilmError(
                f"images of {height}x{breadth} are too small for Conv-4's four poolings; use at least 16x16"
            )
        self.blocks = nn.Sequential(*(Block(channels if i == 0 else width, width, norm) for i in range(4)))
        self.out_features = width * (height // 16) * (breadth // 16)
        self.film_sites = tuple(f"blocks.{i}.norm" for i in range(4))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Stem:
        """All that no deviation changes, for any number of passes over the same images."""
        first = 0
        while first < len(self.blocks) and not hasattr(self.block(first).norm, "film"):
            x = self.block(first)(x)
            first += 1
        return Stem(first, self.block(first).measure(x) if first < len(self.blocks) else x)

    def forward(self, x: Tensor | Stem) -> Tensor:
        start, maps = (x.block, x.maps) if isinstance(x, Stem) else (0, x)
        for i in range(start, len(self.blocks)):
            maps = self.block(i)(maps)
        assert isinstance(maps, Tensor)
        return maps.flatten(1)

    def block(self, i: int) -> Block:
        """Block i of four."""
        return cast(Block, self.blocks[i])
