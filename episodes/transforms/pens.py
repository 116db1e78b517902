"""The hands that write the generated characters: a style per task.

A stroke character's picture (:mod:`episodes.datasets.strokes`) holds nearness to its strokes' lines;
:class:`StrokeStyle` turns it into ink of some width, slant, contrast and paper, alike for all of a task.
"""

from dataclasses import dataclass, fields

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from episodes.errors import EpisodesError

# In canvas units: the picture goes from -1 to 1 both ways. Nearness is 0 from this distance on.
REACH = 0.3  # 4.2 pixels of 28


@dataclass(frozen=True)
class Hand:
    """One style family: the range of each property, from which an episode draws uniformly."""

    width: tuple[float, float]  # the pen's half width, in pixels of a picture of 28
    slant: tuple[float, float] = (-0.1, 0.1)  # positive leans to the right; 1 is 45 degrees
    ink: tuple[float, float] = (0.9, 1.0)  # how light the ink is on black paper: the contrast
    paper: tuple[float, float] = (0.0, 0.0)  # how light the lightest blurred stain of the paper is
    hollow: tuple[float, float] = (
        0.0,
        0.0,
    )  # distance of the two edges of an outlined stroke from its middle
    negative: tuple[float, float] = (0.0, 0.0)  # 1 exchanges black and white at the end


PLAIN = {"plain": Hand(width=(0.8, 0.8), slant=(0.0, 0.0), ink=(1.0, 1.0))}
KNOWN = {
    "fine": Hand(width=(0.45, 0.7)),
    "felt": Hand(width=(0.9, 1.3)),
    "italic": Hand(width=(0.5, 0.9), slant=(0.25, 0.5)),
    "faint": Hand(width=(0.6, 1.0), ink=(0.4, 0.6)),
    "chalk": Hand(width=(0.6, 1.0), negative=(1.0, 1.0)),
    "stained": Hand(width=(0.6, 1.0), paper=(0.35, 0.55)),
}
VALIDATION = {
    "steep": Hand(width=(0.5, 0.9), slant=(0.6, 0.8)),
    "slate": Hand(width=(0.6, 1.0), paper=(0.35, 0.55), negative=(1.0, 1.0)),
    "marker": Hand(width=(1.35, 1.55), ink=(0.65, 0.85)),
    "dim": Hand(width=(0.6, 1.0), ink=(0.5, 0.7), negative=(1.0, 1.0)),
}
UNSEEN = {
    "backhand": Hand(width=(0.5, 0.9), slant=(-0.6, -0.35)),
    "brush": Hand(width=(1.6, 2.0), paper=(0.35, 0.55), negative=(1.0, 1.0)),
    "outline": Hand(width=(0.35, 0.45), hollow=(1.2, 1.5)),
    "ghost": Hand(width=(0.6, 1.0), ink=(0.3, 0.4), negative=(1.0, 1.0)),
}


class StrokeStyle:
    """A per-episode transform that draws a task of nearness images with one pen on one sheet of paper.

    name: "known" (six style families, for training and for testing on what was trained), "validation" (four
    others, on which settings are chosen), "unseen" (four more, for the test alone; no style of one group is
    within the ranges of another) or "plain" (always the same pen).
    """

    _GRID = 5  # the paper's stains are this many random greys each way, smoothly joined

    def __init__(self, name: str = "known") -> None:
        styles = {"known": KNOWN, "validation": VALIDATION, "unseen": UNSEEN, "plain": PLAIN}
        if name not in styles:
            raise EpisodesError(f"no stroke styles are called {name!r}: choose one of {', '.join(styles)}")
        self.name, self.hands = name, tuple(styles[name])
        rows = [[getattr(hand, f.name) for f in fields(Hand)] for hand in styles[name].values()]
        self._ranges = torch.tensor(rows, dtype=torch.float64)  # [hands, properties, (low, high)]
        # Which hand, its properties, the paper.
        self.num_uniforms = 1 + len(fields(Hand)) + self._GRID**2

    def __repr__(self) -> str:
        return f"StrokeStyle({self.name!r})"

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """Draw T tasks: images [T, n, 1, H, H] float32 in [0, 1], uniforms [T, num_uniforms] -> [T, n, 1,
        H, H]; or all of it in three channels, each the same, as beside colour images in a mixture."""
        if images.dim() == 5 and images.shape[2] == 3 and bool((images == images[:, :, :1]).all()):
            return self(images[:, :, :1], uniforms).expand_as(images).contiguous()
        uniforms = torch.as_tensor(uniforms, device=images.device)
        if images.dim() != 5 or images.shape[2] != 1 or uniforms.shape != (len(images), self.num_uniforms):
            raise EpisodesError(
                f"{self!r} draws images [T, n, 1, H, W] with uniforms [T, {self.num_uniforms}], "
                f"got {list(images.shape)} and {list(uniforms.shape)}"
            )
        hands = (uniforms[:, 0] * len(self.hands)).long().clamp_max(len(self.hands) - 1)
        low, high = self._ranges.to(uniforms.device)[hands].unbind(-1)  # each [T, properties]
        place = uniforms[:, 1 : 1 + low.shape[1]]
        drawn = (low + place * (high - low)).to(images.dtype)
        width, slant, ink, stain, hollow, negative = drawn.T[..., None, None, None]  # each [T, 1, 1, 1]
        near = _slanted(images.squeeze(2), slant)  # [T, n, H, W]
        pixel = 2 / images.shape[-1]
        distance = (near.mul_(-REACH).add_(REACH).sub_(hollow * 2 / 28)).abs_()
        # A pixel's coverage falls from 1 to 0 over the pixel that the pen's edge crosses.
        cover = distance.sub_(width * 2 / 28).mul_(-1 / pixel).add_(0.5).clamp_(0, 1)
        paper = stain * self._paper(uniforms[:, 1 + low.shape[1] :].to(images.dtype), images.shape[-2:])
        written = paper + cover * (ink - paper)
        return (negative + (1 - 2 * negative) * written).unsqueeze(2)

    def _paper(self, greys: Tensor, size: torch.Size) -> Tensor:
        """Smooth stains [T, 1, H, W] in [0, 1] from random greys [T, _GRID ** 2]."""
        grid = greys.view(-1, 1, self._GRID, self._GRID)
        return F.interpolate(grid, size=tuple(size), mode="bilinear", align_corners=True)


def _slanted(images: Tensor, slant: Tensor) -> Tensor:
    """Images [T, n, H, W] leaning to the right by `slant` [T, 1, 1, 1]; a new tensor."""
    if not slant.any():
        return images.clone()
    zero, one = torch.zeros_like(slant), torch.ones_like(slant)
    # A leaning character is wider: it is narrowed so that its ends stay on the paper.
    matrix = torch.cat([1 + 0.5 * slant.abs(), slant, zero, zero, one, zero], -1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
