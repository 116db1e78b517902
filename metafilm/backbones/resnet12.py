"""ResNet-12 in the form of TADAM and MetaOptNet (Oreshkin et al. 2018; Lee et al. 2019): four residual blocks
of three convolutions, leaky ReLU 0.1, max-pooling after each, the mean over the last maps."""

from __future__ import annotations

from torch import Tensor, nn

from metafilm.backbones import pooling as pooling_by
from metafilm.engine.convolution import Conv2d
from metafilm.errors import MetafilmError
from metafilm.norms import Norm


class Block(nn.Module):
    """Three 3×3 convolutions with norms, a 1×1 shortcut, then leaky ReLU and 2×2 max-pooling."""

    def __init__(self, in_channels: int, width: int, norm: str) -> None:
        super().__init__()
        channels = (in_channels, width, width, width)
        self.convs = nn.ModuleList(
            Conv2d(channels[i], channels[i + 1], 3, padding=1, bias=False) for i in range(3)
        )
        self.norms = nn.ModuleList(Norm(width, norm) for _ in range(3))
        self.shortcut = nn.Sequential(Conv2d(in_channels, width, 1, bias=False), Norm(width, norm))
        self.relu = nn.LeakyReLU(0.1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if i < 2:
                y = self.relu(y)
        return self.pool(self.relu(y + self.shortcut(x)))


class ResNet12(nn.Module):
    """Four blocks of ``width``, 2·, 4· and 8·``width`` maps (64 gives 64-128-256-512, TADAM's; MetaOptNet's
    are wider).

    Args:
        image_shape: ``(C, H, W)``; at least 16×16.
        width: feature maps of the first block.
        norm: norm mode (:mod:`metafilm.norms`).
        pooling: how the last maps become features (:data:`metafilm.backbones.POOLINGS`).

    Raises:
        MetafilmError: smaller images, or an unknown norm mode or pooling.

    ``[B, C, H, W]`` in, ``[B, 8·width]`` out, times the ``cells`` of a map where these are flattened.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        width: int = 64,
        norm: str = "running",
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.arguments = {"image_shape": list(image_shape), "width": width, "norm": norm, "pooling": pooling}
        pooling_by.require(pooling)
        channels, height, breadth = image_shape
        if min(height, breadth) < 16:
            raise MetafilmError(
                f"images of {height}x{breadth} are too small for ResNet-12's four poolings; "
                "use at least 16x16"
            )
        widths = [width * 2**i for i in range(4)]
        self.blocks = nn.Sequential(
            *(Block(channels if i == 0 else widths[i - 1], widths[i], norm) for i in range(4))
        )
        self.pooling = pooling
        self.cells = pooling_by.cells(height // 16, breadth // 16, pooling)
        self.out_features = widths[-1] * (self.cells if pooling_by.flattens(pooling) else 1)
        self.film_sites = tuple(f"blocks.{i}.norms.{j}" for i in range(4) for j in range(3))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", a=0.1, nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        return pooling_by.pooled(self.blocks(x), self.pooling)
