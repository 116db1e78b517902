"""Handwritten characters by their class, BigGAN's layer in a flow: results/conditioning/generation.json.

    python scripts/conditioning/generation.py train --arm linear --seed 0    # goes on where it stopped
    python scripts/conditioning/generation.py train --arm digits             # of scikit-learn, no download
    python scripts/conditioning/generation.py list                           # the runs there are
    python scripts/conditioning/generation.py write                          # their records
    python scripts/conditioning/generation.py draw                           # their figure

BigGAN (Brock et al., ICLR 2019, arXiv:1809.11096) finds one linear map per layer enough, from a class's
vector to the gains and biases of a class-conditional norm; StyleGAN puts a deep network before them. The
claim is carried here to another generator, a rectified flow (Liu et al., ICLR 2023, arXiv:2209.03003), which
trains by one regression and so is steady enough to show that two arms do not differ. Time and class condition
it by the same layer. 50 characters of Omniglot, 16 drawings each; a frozen classifier, trained on the same
drawings and tried on the other four, judges the samples. Arms and sizes stand in
configs/conditioning/generation.yaml. Tune with `--set` by the scores that `train` prints, whose samples start
from other noise than those of `write`.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from episodes.datasets import load  # noqa: E402
from episodes.progress import track  # noqa: E402
from episodes.transforms.augment import Affine  # noqa: E402
from metafilm import film  # noqa: E402
from metafilm.conditioning import Conditioned  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from metafilm.storage.turn import turn  # noqa: E402
from scripts import device  # noqa: E402
from scripts.conditioning import running, tested  # noqa: E402
from scripts.conditioning.recorded import Batched  # noqa: E402
from scripts.conditioning.unet import TimeAndClass, UNet  # noqa: E402

ALPHABETS = ("Latin", "Korean", "Japanese_(katakana)", "Sanskrit", "Glagolitic")  # no letter is in two
EACH, SAMPLES = 10, 40
"""Characters of an alphabet, and judged samples of a class."""
SIZES = {"omniglot": (50, 28), "digits": (10, 16)}
"""Classes, and pixels of a side."""
JITTER = Affine(degrees=10, translate=0.07, scale=0.1, shear=0)
NOISE = {"val": 1_000_000, "test": 2_000_000}  # where the seeds of the samples' noise begin


@dataclass(frozen=True)
class Settings(running.Plan):
    """A run's settings; the file and the arms change them."""

    data: str = "omniglot"
    """`omniglot`, or `digits`, scikit-learn's."""
    width: int = 32
    """Of the larger maps; the smaller ones have twice as many features."""
    vector: int = 128
    """A class's."""
    decoder: str = "linear"
    depth: int = 0
    """Layers before the decoder that all sites share."""
    pictures: int = 64
    """A step."""
    dropped: float = 0.1
    """Share of pictures whose class is not told, which makes guidance possible."""
    guidance: float = 1.5
    """How far a sample follows the class: 1 as the network says; more, further from what it says of none."""
    heun: int = 16
    """Steps of a sample."""
    judging: int = 1500
    """Steps of the judge's training."""
    bfloat16: bool = True
    """Train and sample in half precision, where it allows."""


@dataclass(frozen=True)
class Drawings:
    """Pictures float [N, 1, S, S] from 0 to 1 and classes int64 [N], those to learn from and those kept."""

    pictures: Tensor
    labels: Tensor
    kept: Tensor
    kept_labels: Tensor
    classes: int

    @classmethod
    def of(cls, name: str) -> "Drawings":
        """`omniglot`: 50 characters, 16 drawings each and 4 kept, 28 x 28. `digits`: of ten classes four in
        five, 16 x 16."""
        if name == "omniglot":
            pool = load("omniglot", "train")
            names = sorted(pool.class_names)
            chosen = [n for a in ALPHABETS for n in [m for m in names if m.startswith(f"{a}/")][:EACH]]
            pool = pool.subset(chosen)
            images = pool.images.float() / 255
            labels = torch.repeat_interleave(torch.arange(len(chosen)), pool.offsets.diff())
            share = 0.8
        elif name == "digits":
            from sklearn.datasets import load_digits

            found = load_digits()
            labels = torch.from_numpy(found.target.astype(np.int64))
            small = torch.from_numpy(found.images.astype(np.float32)).unsqueeze(1) / 16
            order = labels.argsort(stable=True)
            labels = labels[order]
            images = F.interpolate(small[order], scale_factor=2, mode="bilinear")
            share = 0.8
        else:
            raise MetafilmError(f"unknown data {name!r}; expected omniglot or digits")
        counts = labels.bincount()
        place = torch.cat([torch.arange(int(n)) / n for n in counts])  # of a drawing among its class's
        learn = place < share
        return cls(images[learn], labels[learn], images[~learn], labels[~learn], len(counts))

    def some(self, size: int) -> tuple[Tensor, Tensor]:
        """Random ones to learn from, moved a little: [size, 1, S, S] and [size]."""
        here = self.pictures.device
        chosen = torch.randint(len(self.pictures), (size,)).to(here)
        uniforms = torch.rand(size, JITTER.num_uniforms).to(here)
        return JITTER(self.pictures[chosen], uniforms), self.labels[chosen]


class Judge(nn.Module):
    """Which character is it? ``[B, 1, S, S]`` -> logits."""

    def __init__(self, classes: int, width: int = 48) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for before in (1, width, width):
            convolution = nn.Conv2d(before, width, 3, stride=2, padding=1)
            self.layers.extend((convolution, nn.BatchNorm2d(width), nn.ReLU()))
        self.last = nn.LazyLinear(classes)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.last(F.dropout(self.layers(pictures).flatten(1), 0.3, self.training))


def judge(settings: Settings, data: Drawings, folder: Path) -> tuple[Judge, float]:
    """The frozen classifier, trained once a folder, and the share of kept drawings that it knows, in per
    cent."""
    torch.manual_seed(12345)
    model = Judge(data.classes)
    model(data.pictures[:1].cpu())  # which gives its last layer a size
    model.to(data.pictures.device)

    def loss(pictures: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(pictures), labels, label_smoothing=0.1)

    plan = running.Plan(iterations=settings.judging, learning_rate=2e-3, warmup=50, decay=1e-4)
    folder.mkdir(parents=True, exist_ok=True)
    with turn(folder / "lock"):  # one judge for all runs, also those that end at once
        running.train(model, Batched(lambda _: data.some(128), loss), plan, folder, "judge")
    with torch.no_grad():
        right = model(data.kept).argmax(1) == data.kept_labels
    return model.requires_grad_(False), 100 * right.double().mean().item()


class Generator(nn.Module):
    """The flow from noise to pictures: its speed at a place, a time and a class."""

    def __init__(self, settings: Settings, classes: int, side: int) -> None:
        super().__init__()
        self.classes, self.side = classes, side
        network = UNet(settings.width)
        film.insert(network)
        condition = TimeAndClass(
            classes, film.sites(network), settings.vector, settings.depth, decoder=settings.decoder
        )
        self.speed = Conditioned(network, condition)

    def loss(self, pictures: Tensor, labels: Tensor, dropped: float) -> Tensor:
        """The regression of a rectified flow: from noise straight to the picture in a unit of time."""
        data, noise = 2 * pictures - 1, torch.randn_like(pictures)
        time = torch.randn(len(pictures), device=pictures.device).sigmoid()
        told = torch.rand(len(labels), device=labels.device) >= dropped
        labels = torch.where(told, labels, self.classes)
        at = time[:, None, None, None]
        speed = self.speed((1 - at) * noise + at * data, time, labels)
        return F.mse_loss(speed.float(), data - noise)

    @torch.no_grad()
    def sample(self, labels: Tensor, noise: Tensor, guidance: float, steps: int) -> Tensor:
        """Pictures [B, 1, S, S] from 0 to 1 of these classes, by Heun's method."""

        def speed(x: Tensor, time: float) -> Tensor:
            times = torch.full((2 * len(x),), time, device=x.device)
            both = torch.cat((labels, torch.full_like(labels, self.classes)))
            told, untold = self.speed(x.repeat(2, 1, 1, 1), times, both).float().chunk(2)
            return untold + guidance * (told - untold)

        x, step = noise, 1 / steps
        for number in range(steps):
            first = speed(x, number * step)
            second = speed(x + step * first, (number + 1) * step)
            x = x + step * (first + second) / 2
        return ((x + 1) / 2).clamp(0, 1)


def make(settings: Settings) -> Generator:
    """The model as it starts."""
    torch.manual_seed(settings.seed)
    if settings.data not in SIZES:
        raise MetafilmError(f"unknown data {settings.data!r}; expected {' or '.join(SIZES)}")
    return Generator(settings, *SIZES[settings.data])  # not in channels_last, where group norm is slow


def fit(model: Generator, settings: Settings, folder: Path, description: str) -> float:
    """Train the model; the seconds it took."""
    data = device.beside(model, Drawings.of(settings.data))

    def loss(pictures: Tensor, labels: Tensor) -> Tensor:
        with device.half(model, settings.bfloat16):
            return model.loss(pictures, labels, settings.dropped)

    batched = Batched(lambda _: data.some(settings.pictures), loss)
    return running.train(model, batched, settings, folder, description)


def samples(
    model: Generator, settings: Settings, split: str, each: int, description: str = "sampling"
) -> tuple[Tensor, Tensor]:
    """`each` pictures of every class, class by class, and their classes."""
    model.eval()
    made = torch.Generator().manual_seed(NOISE[split] + settings.seed)
    labels = torch.arange(model.classes).repeat_interleave(each)
    noise = torch.randn(len(labels), 1, model.side, model.side, generator=made)
    found = []
    parts = list(zip(labels.split(100), noise.split(100), strict=True))
    here = device.of(model)
    with device.half(model, settings.bfloat16):
        for some, start in track(parts, description):
            drawn = model.sample(some.to(here), start.to(here), settings.guidance, settings.heun)
            found.append(drawn.cpu())
    return torch.cat(found), labels


def score(model: Generator, settings: Settings, split: str, description: str, folder: Path) -> tested.Scores:
    """Per cent of samples that the judge takes for their class, its interval over classes, and beside it the
    per cent of kept drawings that it knows."""
    data = device.beside(model, Drawings.of(settings.data))
    judging, known = judge(settings, data, folder.parent / f"judge-{settings.data}-{settings.judging}")
    pictures, labels = samples(model, settings, split, SAMPLES, description)
    with torch.no_grad():
        right = (judging(pictures.to(device.of(model))).argmax(1).cpu() == labels).double()
    by_class = (100 * right.view(-1, SAMPLES).mean(1)).tolist()
    value = sum(by_class) / len(by_class)
    return {"judge-accuracy": {"value": value, "ci95": interval(by_class), "judge_on_drawings": known}}


def draw(options: argparse.Namespace, _found: list[dict[str, Any]]) -> None:
    """docs/generation.svg: the records, and three samples a class by the runs of this seed, on Omniglot where
    there are such and else on digits; of many classes every second."""
    from scripts.conditioning import pictures  # needs matplotlib

    made, arms = {}, ("linear", "mlp")
    if not any(SYSTEM.folder(options.runs, arm, options.seed, options.set).is_dir() for arm in arms):
        arms = ("digits", "digits-mlp")
    data = Drawings.of(SYSTEM.settings(arms[0]).data)
    shown = torch.arange(0, data.classes, 2 if data.classes > 20 else 1)
    drawings = torch.stack([data.pictures[data.labels == label][0, 0] for label in shown])
    for arm in arms:
        folder = SYSTEM.folder(options.runs, arm, options.seed, options.set)
        if folder.is_dir():
            settings = SYSTEM.settings(arm, [f"seed={options.seed}", *options.set])
            model = make(settings)
            running.restore(model, folder)
            found = samples(model, settings, "test", 3)[0]
            made[arm] = found.view(data.classes, 3, *found.shape[2:])[shown]
    pictures.generation(json.loads(SYSTEM.out.read_text()), drawings, made)


SYSTEM = tested.system(
    "generation",
    Settings(),
    make,
    fit,
    score,
    "classes",
    f"{SAMPLES} samples of each class",
    arm="linear",
    more={"draw": draw},
)

if __name__ == "__main__":
    SYSTEM.start(__doc__)
