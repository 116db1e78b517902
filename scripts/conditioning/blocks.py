"""FiLM's network for questions about pictures (Perez et al., AAAI 2018, arXiv:1709.07871, 3.2), small."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def with_places(maps: Tensor, axes: Sequence[str] = ("x", "y")) -> Tensor:
    """A map more per axis, that of every place from -1 to 1: ``[B, C, H, W]`` -> ``[B, C + 2, H, W]``, x
    before y. Fewer axes: without those."""
    height, width = maps.shape[2:]
    places = {
        "y": torch.linspace(-1, 1, height, dtype=maps.dtype, device=maps.device)[:, None].expand(
            height, width
        ),
        "x": torch.linspace(-1, 1, width, dtype=maps.dtype, device=maps.device).expand(height, width),
    }
    if not axes:
        return maps
    return torch.cat((maps, torch.stack([places[axis] for axis in axes]).expand(len(maps), -1, -1, -1)), 1)


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
    """FiLM's residual block: ``norm`` is the site, and has no affine of its own.

    Args:
        axes: of which its coordinate maps are; none: it has none.
        padding: what lies around a map, as ``nn.Conv2d`` has it; zeros tell how near the border is.
        kernel: of its convolution, rows and columns, odd.
        dilation: how far apart the kernel's columns are.
    """

    def __init__(
        self,
        width: int,
        axes: Sequence[str] = ("x", "y"),
        padding: str = "zeros",
        kernel: tuple[int, int] = (3, 3),
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.axes = tuple(axes)
        self.entry = nn.Conv2d(width + len(self.axes), width, 1)
        around = (kernel[0] // 2, dilation * (kernel[1] // 2))
        self.conv = nn.Conv2d(
            width, width, kernel, padding=around, dilation=(1, dilation), padding_mode=padding
        )
        self.norm = nn.BatchNorm2d(width, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.entry(with_places(x, self.axes)))
        return branch + F.relu(self.norm(self.conv(branch)))


class Trunk(nn.Module):
    """Blocks and classifier: ``[B, width, H, W]`` -> logits.

    Args:
        blocks: how many, or the blocks.
        axes: of the coordinate maps before the classifier, and of the blocks'.
    """

    def __init__(
        self,
        width: int,
        blocks: int | Sequence[Block],
        answers: int,
        hidden: int = 256,
        axes: Sequence[str] = ("x", "y"),
    ) -> None:
        super().__init__()
        self.axes = tuple(axes)
        made = [Block(width, axes) for _ in range(blocks)] if isinstance(blocks, int) else blocks
        self.blocks = nn.Sequential(*made)
        self.last = nn.Sequential(nn.Conv2d(width + len(self.axes), hidden, 1), nn.BatchNorm2d(hidden))
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, answers)
        )

    def forward(self, maps: Tensor) -> Tensor:
        found = self.last(with_places(self.blocks(maps), self.axes))
        # the maximum first, since ReLU keeps order; amax((2, 3)) takes nine times as long, for its gradient
        return self.classifier(F.relu(F.adaptive_max_pool2d(found, 1).flatten(1)))
