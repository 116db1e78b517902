"""A network that paints pictures in a style, and a plain one that judges how well: Johnson, Alahi and Fei-Fei
(ECCV 2016, arXiv:1603.08155), as Dumoulin et al. (ICLR 2017, arXiv:1610.07629) have it, small."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNorm(nn.InstanceNorm2d):
    """PyTorch's, by two sums instead of by batch norm, which is faster here and keeps the memory's layout."""

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(input.float(), (2, 3), correction=0, keepdim=True)
        scale = (variance + self.eps).rsqrt()
        return input * scale.to(input.dtype) - (mean * scale).to(input.dtype)


class Step(nn.Module):
    """Convolution over a mirrored border, instance norm (the site), activation. up: doubles the map first."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, up: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, padding_mode="reflect", bias=False)
        self.norm = InstanceNorm(after)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.norm(self.conv(x))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Step(width, width, 3), Step(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Painter(nn.Module):
    """Pictures ``[B, 3, H, W]`` from 0 to 1 -> pictures as large; H and W are multiples of four.

    All its norms are sites, and have no affine of their own.
    """

    def __init__(self, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.down = nn.Sequential(
            Step(3, width, 9), nn.ReLU(), Step(width, 2 * width, 3, 2), nn.ReLU(),
            Step(2 * width, 4 * width, 3, 2), nn.ReLU(),
        )  # fmt: skip
        self.blocks = nn.Sequential(*(Residual(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(
            Step(4 * width, 2 * width, 3, up=True), nn.ReLU(), Step(2 * width, width, 3, up=True), nn.ReLU()
        )
        self.last = Step(width, 3, 9)

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.sigmoid(self.last(self.up(self.blocks(self.down(2 * pictures - 1)))))


class Judge(nn.Module):
    """A plain network of four convolutions with random weights that nobody trains.

    Random weights judge about as well as trained ones as long as nothing is added across layers (Wang, Li and
    Vasconcelos, CVPR 2021, arXiv:2104.05623): a residual network's features are too peaked for it. A fixed
    seed makes it the same for everybody, without a download.
    """

    WIDTHS = (32, 64, 64, 64)
    CONTENT = 1
    """Which layer tells what a picture shows."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList()
        before = 3
        for width in self.WIDTHS:
            layer = nn.Conv2d(before, width, 3, padding=1, padding_mode="reflect", bias=False)
            drawn = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data = drawn / (layer.weight[0].numel() / 2) ** 0.5
            self.layers.append(layer)
            before = width
        self.requires_grad_(False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]`` from 0 to 1 -> what each layer makes of them."""
        x, found = 4 * pictures - 2, []
        for number, layer in enumerate(self.layers):
            x = F.relu(layer(F.avg_pool2d(x, 2) if number else x))
            found.append(x)
        return found


def gram(features: Tensor) -> Tensor:
    """How features go together, wherever: ``[B, C, H, W]`` -> ``[B, C, C]``, their mean products."""
    flat = features.float().flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def style_loss(features: list[Tensor], grams: list[Tensor]) -> Tensor:
    """How far pictures are from styles, ``[B]``: over layers the mean of their Gram matrices' squared
    distance, as a share of the style's own square, so that styles count alike. grams: ``[B, C, C]`` of each
    layer."""
    shares = []
    for found, wanted in zip(features, grams, strict=True):
        shares.append((gram(found) - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2)))
    return torch.stack(shares).mean(0)


def content_loss(features: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """How far pictures are from those they were painted after, ``[B]``: the squared distance of one layer's
    maps, each normalised over its places. A map's mean and variance are the style's to choose (Huang and
    Belongie, ICCV 2017, arXiv:1703.06868), and with random weights they are colour and light above all. 0 is
    the same picture, 2 one that has nothing to do with it."""
    found, target = (F.instance_norm(part[Judge.CONTENT].float()) for part in (features, wanted))
    return (found - target).square().mean((1, 2, 3))
