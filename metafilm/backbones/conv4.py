"""Conv-4, the four-block network of the few-shot literature (Vinyals et al. 2016; Snell et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from metafilm.backbones import pooling as pooling_by
from metafilm.backbones.pooling import Features
from metafilm.engine.convolution import Conv2d
from metafilm.errors import MetafilmError
from metafilm.film import undisturbed
from metafilm.norms import Measured, Norm

WORDS = {2: "two", 3: "three", 4: "four"}


class Block(nn.Module):
    """3×3 convolution, norm, 2×2 max-pooling, ReLU: the usual norm, ReLU, pooling in an order that gives the
    same numbers on a quarter of the maps.

    Args:
        pools: False leaves the max-pooling out.
        relu: False leaves the ReLU out.
    """

    def __init__(
        self, in_channels: int, width: int, norm: str, pools: bool = True, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = Norm(width, norm)
        self.pool = nn.MaxPool2d(2) if pools else nn.Identity()
        self.window = 2 if pools else 1
        self.rectified = relu
        self.relu = nn.ReLU() if relu else nn.Identity()

    def measure(self, x: Tensor) -> Measured:
        """What the block computes before its FiLM site."""
        return self.norm.measure(x, self.conv, self.window)

    def forward(self, x: Tensor | Measured) -> Tensor:
        """``x``: maps, or what :meth:`measure` made of them."""
        # exported as a plain network, or traced by the compiler, which fuses these by itself
        if not isinstance(self.norm, Norm) or (torch.compiler.is_compiling() and isinstance(x, Tensor)):
            return self.relu(self.pool(self.norm(self.conv(x))))
        return self.norm.finish(x if isinstance(x, Measured) else self.measure(x), self.rectified)


def _is_fixed(block: Block) -> bool:
    """Whether a block has no FiLM layer anywhere, nor a hook."""
    return not any(hasattr(module, "film") or not undisturbed(module) for module in block.modules())


class Stem(NamedTuple):
    """The blocks before ``block`` done, and that one up to its FiLM site where this is its norm alone."""

    block: int
    maps: Tensor | Measured


class Conv4(nn.Module):
    """Four blocks of ``width`` maps.

    Args:
        image_shape: ``(C, H, W)`` of the images; at least 16×16 (8×8 with three poolings, 4×4 with two).
        width: feature maps per block (64 in Snell et al.; CAVIA uses up to 512).
        norm: norm mode (:mod:`metafilm.norms`).
        pooling: how the last maps become features (:data:`metafilm.backbones.POOLINGS`).
        pools: blocks that max-pool, the first ones: 4, or 3, which leaves the last block's maps at twice the
            size (RFS: Tian et al., ECCV 2020, with ``pooling="mean"``), or 2, at four times.
        last_relu: False leaves the last block's ReLU out, so that features may be negative, which cosines
            tell more by (Gidaris & Komodakis, CVPR 2018, arXiv:1804.09458).

    Raises:
        MetafilmError: smaller images, an unknown norm mode or pooling, another number of poolings.

    ``[B, C, H, W]`` in, ``[B, out_features]`` out: flattened 64 for 28×28 images, 1,600 for 84×84; the mean
    or maximum over the ``cells`` of a map ``width``.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: int = 64,
        norm: str = "running",
        pooling: str = "flatten",
        pools: int = 4,
        last_relu: bool = True,
    ) -> None:
        super().__init__()
        self.arguments = {"image_shape": list(image_shape), "width": width, "norm": norm}
        self.arguments |= {"pooling": pooling, "pools": pools, "last_relu": last_relu}
        channels, height, breadth = image_shape
        if pools not in WORDS:
            raise MetafilmError(f"Conv-4 has 2, 3 or 4 poolings, not {pools!r}")
        pooling_by.require(pooling)
        least = 2**pools
        if min(height, breadth) < least:
            raise MetafilmError(
                f"images of {height}x{breadth} are too small for Conv-4's {WORDS[pools]} poolings; use at "
                f"least {least}x{least}"
            )
        self.blocks = nn.Sequential(
            *(
                Block(channels if i == 0 else width, width, norm, i < pools, i < 3 or last_relu)
                for i in range(4)
            )
        )
        self.pooling, self.pools, self.last_relu = pooling, pools, last_relu
        self.cells = pooling_by.cells(height // least, breadth // least, pooling)
        self.out_features = width * (self.cells if pooling_by.flattens(pooling) else 1)
        self.features = Features(self.out_features)
        self.film_sites = tuple(f"blocks.{i}.norm" for i in range(4))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Stem:
        """All that no deviation changes nor hook sees, for any number of passes over the same images."""
        first = 0
        while first < len(self.blocks) and _is_fixed(self.block(first)):
            x = self.block(first)(x)
            first += 1
        if first == len(self.blocks):
            return Stem(first, x)
        block = self.block(first)
        fixed = undisturbed(block) and undisturbed(block.conv)
        return Stem(first, block.measure(x) if fixed else x)

    def forward(self, x: Tensor | Stem) -> Tensor:
        start, maps = (x.block, x.maps) if isinstance(x, Stem) else (0, x)
        for i in range(start, len(self.blocks)):
            maps = self.block(i)(maps)
        assert isinstance(maps, Tensor)
        return self.features(pooling_by.pooled(maps, self.pooling))

    def block(self, i: int) -> Block:
        """Block i of four."""
        return cast(Block, self.blocks[i])
