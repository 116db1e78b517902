"""Pictures to be painted after (`styles.py`)."""

import numpy as np
import torch
from torch import Tensor

from episodes.counter import integers
from episodes.datasets import sort_of_clevr
from episodes.datasets.miniimagenet import find_split, load_miniimagenet
from episodes.files.root import data_root

SIDE = 64
DRAWN = 221  # the stream of random numbers by which training pictures are chosen and cut


class Contents:
    """Pictures of a split to be painted after, of which pieces are cut: miniImageNet's, or else shapes.

    Raises:
        EpisodesError: damaged photographs.
    """

    def __init__(self, part: str, photographs: bool) -> None:
        self.photographs = photographs and find_split(data_root(), part) is not None
        if self.photographs:
            self.images = load_miniimagenet(part, in_memory=False).images  # uint8 [N, 3, side, side]
        else:
            scenes = sort_of_clevr.split(part, None if part == "train" else 1000).images
            self.images = torch.from_numpy(scenes).permute(0, 3, 1, 2)
        self.room = self.images.shape[2] - SIDE + 1  # in how many places of a line a piece can begin

    def batch(self, step: int, size: int, seed: int) -> Tensor:
        """The pieces of a step, cut somewhere and half of them mirrored: ``[size, 3, 64, 64]`` from 0 to
        1."""
        high = np.array([len(self.images), self.room, self.room, 2])
        pieces = []
        for number, y, x, mirrored in integers(seed, [step], DRAWN, high, (size, 4))[0].tolist():
            piece = self.images[number, :, y : y + SIDE, x : x + SIDE]
            pieces.append(piece.flip(2) if mirrored else piece)
        return torch.stack(pieces).float() / 255

    def middle(self, count: int) -> Tensor:
        """The middles of this many, evenly over all there are: ``[count, 3, 64, 64]`` from 0 to 1."""
        at = self.room // 2
        chosen = torch.arange(count) * len(self.images) // count
        return self.images[chosen, :, at : at + SIDE, at : at + SIDE].float() / 255
