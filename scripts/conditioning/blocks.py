"""FiLM's network for questions about pictures (Perez et al., AAAI 2018, arXiv:1709.07871, 3.2), small."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def with_places(maps: Tensor) -> Tensor:
    """Two more maps, x and y of every place from -1 to 1: ``[B, C, H, W]`` -> ``[B, C + 2, H, W]``."""
    height, width = maps.shape[2:]
    y = torch.linspace(-1, 1, height, dtype=maps.dtype)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width, dtype=maps.dtype).expand(height, width)
    return torch.cat((maps, torch.stack((x, y)).expand(len(maps), -1, -1, -1)), 1)


class Stem(nn.Module):
    """``[I, 3, 75, 75]`` -> ``[I, width, 5, 5]``, once for all questions about a picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (5, width // 2, width, width, width)
        self.layers = nn.Sequential()
        for before, after in pairwise(sizes):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            self.layers.extend((convolution, nn.BatchNorm2d(after), nn.ReLU()))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(with_places(pictures))


class Block(nn.Module):
    """FiLM's residual block: ``norm`` is the site, and has no affine of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(width + 2, width, 1)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.entry(with_places(x)))
        return branch + F.relu(self.norm(self.conv(branch)))


class Trunk(nn.Module):
    """Blocks and classifier: ``[B, width, 5, 5]`` -> logits."""

    def __init__(self, width: int, blocks: int, answers: int, hidden: int = 256) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.last = nn.Sequential(nn.Conv2d(width + 2, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU())
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, answers)
        )

    def forward(self, maps: Tensor) -> Tensor:
        return self.classifier(self.last(with_places(self.blocks(maps))).amax((2, 3)))
