"""Conv-4, the four-block network of the few-shot literature (Vinyals et al. 2016; Snell et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from metafilm.errors import MetafilmError
from metafilm.norms import Norm


class Block(nn.Module):
    """3×3 convolution, norm, 2×2 max-pooling, ReLU. Pooling before the ReLU gives the same numbers on a
    quarter of the maps.
    """

    def __init__(self, in_channels: int, width: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = Norm(width, norm)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.pool(self.norm(self.conv(x))))


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

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).flatten(1)
