"""Segmentation by a phrase, "the small red circles at the top left": results/conditioning/segmentation.json.

    python scripts/conditioning/segmentation.py train --arm film --seed 0    # goes on where it stopped
    python scripts/conditioning/segmentation.py list                         # the runs there are
    python scripts/conditioning/segmentation.py write                        # their records
    python scripts/conditioning/segmentation.py draw                         # their figure

FiLM does the same at every place of a map, so a phrase that names a place leaves it helpless unless something
tells places apart: coordinate maps, or gains of their own per row and column (the Guiding Block of Rupprecht
et al., "Guide Me", CVPR 2018, arXiv:1803.11544). Scenes and phrases are those of
episodes/datasets/scenes/phrased_shapes.py. Arms and sizes stand in configs/conditioning/segmentation.yaml.
Tune with `--set` by the validation scores that `train` prints; the test scenes are for `write`.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from episodes.datasets.scenes import phrased_shapes  # noqa: E402
from episodes.datasets.scenes.phrased_shapes import VOCABULARY, Scenes  # noqa: E402
from episodes.progress import track  # noqa: E402
from metafilm import film  # noqa: E402
from metafilm.conditioning import Conditioned, NoCondition, SequenceEncoder  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from scripts import device  # noqa: E402
from scripts.conditioning import running, tested  # noqa: E402
from scripts.conditioning.blocks import Block  # noqa: E402
from scripts.conditioning.recorded import Batched  # noqa: E402

ORDER = 202  # the stream of random numbers by which training scenes are shuffled


@dataclass(frozen=True)
class Settings(running.Plan):
    """A run's settings; the file and the arms change them."""

    scenes: int = 10_000
    width: int = 24
    """Of the maps at half the picture's size; at a quarter of it, where the phrase acts, twice as much."""
    blocks: int = 2
    conditioned: bool = True
    """Off: the network is blind to the phrase."""
    modulation: str = "film"
    spatial: bool = False
    """A gain for every row and column, besides those of the features."""
    coordinates: bool = False
    """Two coordinate maps at the entry of each block."""
    padding: str = "replicate"
    """Around the maps. Zeros tell how near the border is."""
    state: int = 64
    """Of the GRU."""
    pictures: int = 8
    """A step, with their 8 phrases each."""
    bfloat16: bool = True
    """Train in half precision, where it allows; scores are always of full precision."""


class Segmenter(nn.Module):
    """Pictures and phrases -> a logit per pixel, ``[I·n, 64, 64]``.

    What stands before the phrase is run once a picture: two maps, of half and of a quarter of its size. The
    phrase modulates the smaller one; the larger one has the outlines.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width, deep, padding = settings.width, 2 * settings.width, settings.padding
        self.fine = nn.Sequential(_layer(3, width, 3, 2, padding), _layer(width, width, 3, 1, padding))
        self.coarse = nn.Sequential(_layer(width, deep, 3, 2, padding), _layer(deep, deep, 3, 1, padding))
        axes = ("x", "y") if settings.coordinates else ()
        blocks = nn.Sequential(*(Block(deep, axes, padding) for _ in range(settings.blocks)))
        condition: nn.Module = NoCondition()
        if settings.conditioned:
            film.insert(blocks, [f"{i}.norm" for i in range(settings.blocks)])
            sites = film.sites(blocks)
            quarter = phrased_shapes.SIDE // 4
            condition = SequenceEncoder(
                len(VOCABULARY),
                sites,
                width=settings.state,
                modulation=settings.modulation,
                maps=dict.fromkeys(sites, (quarter, quarter)) if settings.spatial else None,
            )
        self.chooser = Conditioned(blocks, condition)
        self.join = _layer(width + deep, width, 1, 1, padding)
        self.outline = _layer(width, width, 3, 1, padding)
        self.last = nn.Conv2d(width, 4, 1)

    def forward(self, pictures: Tensor, phrases: Tensor) -> Tensor:
        """``pictures``: uint8 ``[I, 64, 64, 3]``. ``phrases``: int64 ``[I, n, L]``."""
        count = phrases.shape[1]
        fine = self.fine(pictures.permute(0, 3, 1, 2).float() / 128 - 1)
        coarse = self.coarse(fine).repeat_interleave(count, 0)
        chosen = F.interpolate(self.chooser(coarse, phrases.flatten(0, 1)), scale_factor=2)
        joint = self.join(torch.cat((chosen, fine.repeat_interleave(count, 0)), 1))
        return F.pixel_shuffle(self.last(self.outline(joint)), 2).squeeze(1)


def _layer(before: int, after: int, kernel: int, stride: int, padding: str) -> nn.Sequential:
    convolution = nn.Conv2d(
        before,
        after,
        kernel,
        stride,
        kernel // 2,
        bias=False,
        padding_mode=padding if kernel > 1 else "zeros",
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


@dataclass(frozen=True)
class Examples:
    """Scenes as tensors; phrases: int64 [N, 8, 8], meant: bool [N, 8, 1 + 7], the first for the ground."""

    pictures: Tensor
    phrases: Tensor
    owner: Tensor
    meant: Tensor

    @classmethod
    def of(cls, scenes: Scenes) -> "Examples":
        meant = F.pad(torch.from_numpy(scenes.meant), (1, 0))
        parts = (scenes.images, scenes.words(), scenes.owner)
        pictures, phrases, owner = (torch.from_numpy(part) for part in parts)
        return cls(pictures, phrases, owner, meant)

    def some(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, phrases and masks, ``[I·8, 64, 64]``, of these scenes."""
        owner, meant = self.owner[chosen].flatten(1).long(), self.meant[chosen]
        masks = meant.gather(2, owner.unsqueeze(1).expand(-1, meant.shape[1], -1))
        return self.pictures[chosen], self.phrases[chosen], masks.view(-1, *self.owner.shape[1:])


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of the pixels, and Dice's coefficient of the masks, ``[B, H, W]`` each."""
    target = masks.to(logits.dtype)
    given = logits.sigmoid()
    both = (given * target).sum((1, 2))
    dice = (2 * both + 1) / (given.sum((1, 2)) + target.sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + (1 - dice).mean()


def overlap(logits: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union, ``[B]``; 1 where nothing is meant and nothing marked."""
    marked = logits > 0
    union = (marked | masks).sum((1, 2))
    return torch.where(union > 0, (marked & masks).sum((1, 2)) / union.clamp(min=1), 1.0)


def make(settings: Settings) -> Segmenter:
    """The model as it starts."""
    torch.manual_seed(settings.seed)
    return Segmenter(settings).to(memory_format=torch.channels_last)  # the faster one for these sizes


def fit(model: Segmenter, settings: Settings, folder: Path, description: str) -> float:
    """Train the model; the seconds it took."""
    data = device.beside(model, Examples.of(phrased_shapes.split("train", settings.scenes)))

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = tested.shuffled(step, settings.pictures, data.pictures, settings.seed, ORDER)
        return data.some(chosen)

    def loss(pictures: Tensor, phrases: Tensor, masks: Tensor) -> Tensor:
        with device.half(model, settings.bfloat16):
            logits = model(pictures, phrases)
        return loss_of(logits.float(), masks)

    return running.train(model, Batched(batch, loss), settings, folder, description)


@torch.no_grad()
def score(model: nn.Module, settings: Settings, split: str, description: str, folder: Path) -> tested.Scores:
    """Mean intersection over union of each kind of phrase, its interval over scenes, and the share of phrases
    whose overlap is above a half."""
    data = device.beside(model, Examples.of(phrased_shapes.split(split)))
    model.eval()
    found = []
    for chosen in track(list(torch.arange(len(data.pictures)).split(50)), description):
        pictures, phrases, masks = data.some(chosen.to(data.owner.device))
        found.append(overlap(model(pictures, phrases), masks).view(len(chosen), -1))
    overlaps = torch.cat(found).double().cpu()
    scores = {}
    for kind, part in zip(("attribute", "place"), overlaps.split(phrased_shapes.EACH, 1), strict=True):
        by_scene = part.mean(1).tolist()
        scores[f"miou-{kind}"] = {
            "value": sum(by_scene) / len(by_scene),
            "ci95": interval(by_scene),
            "above_half": (part > 0.5).double().mean().item(),
        }
    return scores


@torch.no_grad()
def draw(options: argparse.Namespace, _found: list[dict[str, Any]]) -> None:
    """docs/segmentation.svg: the records, and what the runs of this seed mark in three test scenes."""
    from scripts.conditioning import pictures  # needs matplotlib

    images, phrases, masks = Examples.of(phrased_shapes.split("test", 3)).some(torch.arange(3))
    place = phrased_shapes.EACH + 1
    sentences = [" ".join(VOCABULARY[w] for w in row if w) for row in phrases[:, place].tolist()]
    marked = {}
    for arm in ("film", "spatial", "coordinates"):
        folder = SYSTEM.folder(options.runs, arm, options.seed, options.set)
        if folder.is_dir():
            model = make(SYSTEM.settings(arm, options.set))
            running.restore(model, folder)
            marked[arm] = (model(images, phrases) > 0).view(3, -1, *masks.shape[1:])[:, place].numpy()
    truth = masks.view(3, -1, *masks.shape[1:])[:, place].numpy()
    records = json.loads(SYSTEM.out.read_text())
    pictures.segmentation(records, images.numpy(), sentences, truth, marked)


SYSTEM = tested.system(
    "segmentation",
    Settings(),
    make,
    fit,
    score,
    "test scenes",
    "1000 test scenes of 8 phrases",
    more={"draw": draw},
)

if __name__ == "__main__":
    SYSTEM.start(__doc__)
