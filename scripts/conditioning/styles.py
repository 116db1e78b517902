"""Eight styles in one network, a row of numbers each: results/conditioning/styles.json.

    python scripts/conditioning/styles.py train --arm many                    # goes on where it stopped
    python scripts/conditioning/styles.py train --arm separate --set style=3  # a network of its own for one
    python scripts/conditioning/styles.py train --arm ninth-row               # a ninth style, its row alone
    python scripts/conditioning/styles.py list                                # the runs there are
    python scripts/conditioning/styles.py write                               # their records
    python scripts/conditioning/styles.py draw                                # docs/styles.png of them

Conditional instance norm (Dumoulin et al., ICLR 2017, arXiv:1610.07629): the network that paints is shared,
and a style is a gain and a bias for every feature. Styles are textures drawn by rule
(episodes/datasets/textures.py), pictures those of miniImageNet where it is there and else shapes; a plain
network with random weights says how near a picture is to a style. Sizes stand in
configs/conditioning/styles.yaml. Tune with `--set` by the validation losses that `train` prints; the test
pictures are for `write`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from episodes.datasets import textures  # noqa: E402
from episodes.progress import track  # noqa: E402
from metafilm import film  # noqa: E402
from metafilm.conditioning import ClassTable, Conditioned  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from metafilm.storage.atomic import atomic_write  # noqa: E402
from scripts import device  # noqa: E402
from scripts.conditioning import committed, running, tested  # noqa: E402
from scripts.conditioning.commands import System  # noqa: E402
from scripts.conditioning.contents import Contents  # noqa: E402
from scripts.conditioning.painter import Judge, Painter, content_loss, gram, style_loss  # noqa: E402
from scripts.conditioning.recorded import Batched  # noqa: E402

SCORED = 200  # pictures of a score
NAMES = (*textures.STYLES, textures.NINTH)


@dataclass(frozen=True)
class Settings(running.Plan):
    """A run's settings; the file and the arms change them."""

    style: int = -1
    """The one style of this network, of nine; -1: the first eight, a row each."""
    start: str = ""
    """The arm whose network is taken over and kept as it is, while a new row is trained."""
    width: int = 16
    blocks: int = 3
    pictures: int = 8
    """A step; with eight styles one of each."""
    style_weight: float = 1.0
    """Of the style's loss beside the content's."""
    photographs: bool = True
    """miniImageNet's where it is there; else and without, shapes."""
    bfloat16: bool = True
    """Train in half precision, where it allows; scores are always of full precision."""


def model_of(settings: Settings) -> Conditioned:
    """The painting network and its table of styles."""
    painter = film.insert(Painter(settings.width, settings.blocks))
    return Conditioned(painter, ClassTable(1 if settings.style >= 0 else 8, film.sites(painter)))


def styles_of(settings: Settings) -> tuple[str, ...]:
    """The styles of a run, by the row of its table. Raises MetafilmError: there is no such style."""
    if not -1 <= settings.style < len(NAMES):
        raise MetafilmError(f"style {settings.style}; there are 0 to {len(NAMES) - 1}, and -1 for eight")
    return NAMES[settings.style : settings.style + 1] if settings.style >= 0 else textures.STYLES


class Losses(nn.Module):
    """What the judge says of painted pictures."""

    def __init__(self, styles: Sequence[str]) -> None:
        super().__init__()
        self.judge = device.placed(Judge().to(memory_format=torch.channels_last))
        drawn = torch.from_numpy(np.stack([textures.draw(name) for name in styles]))
        pictures = drawn.to(device.of(self.judge)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            self.grams = [gram(layer) for layer in self.judge(pictures)]

    def forward(self, painted: Tensor, contents: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of style and content, ``[B]`` each. rows: which style each picture was to have."""
        with torch.no_grad():
            wanted = self.judge(contents)
        found = self.judge(painted)
        return style_loss(found, [layer[rows] for layer in self.grams]), content_loss(found, wanted)


@torch.no_grad()
def score(
    model: Conditioned, losses: Losses, contents: Tensor, styles: int, description: str
) -> tuple[Tensor, Tensor]:
    """Losses of style and content, by style and picture: ``[styles, pictures]`` each."""
    model.eval()
    batches = [(row, some) for row in range(styles) for some in contents.split(20)]
    found = []
    for row, some in track(batches, description):
        some = some.to(device.of(model))
        rows = torch.full((len(some),), row, device=some.device)
        found.append(torch.stack(losses(model(some, rows), some, rows)))
    style, content = torch.cat(found, 1).cpu().view(2, styles, -1)
    return style, content


def train(settings: Settings, folder: Path, arm: str) -> dict[str, Any]:
    """Train a run, or go on with it, and score it."""
    styles, contents = styles_of(settings), Contents("train", settings.photographs)
    torch.manual_seed(settings.seed)
    model, losses = model_of(settings), Losses(styles)
    if settings.start:
        take_over(model, SYSTEM.settings(settings.start, [f"seed={settings.seed}"]), settings, folder)
    model = device.placed(model.to(memory_format=torch.channels_last))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        pictures = contents.batch(step, settings.pictures, settings.seed).to(device.of(model))
        rows = (torch.arange(len(pictures), device=pictures.device) + step * len(pictures)) % len(styles)
        return pictures, rows

    def loss(pictures: Tensor, rows: Tensor) -> Tensor:
        with device.half(model, settings.bfloat16):
            style, content = losses(model(pictures, rows), pictures, rows)
        return settings.style_weight * style.mean() + content.mean()

    steps = Batched(batch, loss)
    seconds = running.train(model, steps, settings, folder, f"{arm}, seed {settings.seed}")
    return {
        "settings": asdict(replace(settings, photographs=contents.photographs)),
        **scored(model, settings, "val", arm),
        "parameters": sum(
            p.numel() for n, p in model.named_parameters() if p.requires_grad and ".film.delta_" not in n
        ),
        "beside": {"numbers_a_style": running.count(model, "condition") / len(styles)},
        "training_seconds": seconds,
    }


def scored(model: Conditioned, settings: Settings, split: str, arm: str) -> dict[str, dict[str, Any]]:
    """What is kept of a model's losses on a split's pictures: means, and those by picture and by style."""
    styles = styles_of(settings)
    middles = Contents(split, settings.photographs).middle(SCORED)
    style, content = score(model, Losses(styles), middles, len(styles), f"{arm}, {split}")
    means = {
        name: {"value": float(values.mean()), "ci95": interval(values.mean(0).tolist())}
        for name, values in (("style-loss", style), ("content-loss", content))
    }
    by_style = dict(zip(styles, style.mean(1).tolist(), strict=True))
    return {
        "scores": {split: means},
        "by_picture": {split: style.mean(0).tolist()},
        "by_style": {split: by_style},
    }


def test(runs: Path) -> None:
    """Score the finished runs of a folder on test pictures, where that has not been done."""
    for path, found, settings in tested.untested(runs, Settings()):
        model = device.placed(model_of(settings).to(memory_format=torch.channels_last))
        running.restore(model, path.parent)
        for name, part in scored(model, settings, "test", found["arm"]).items():
            found[name] |= part


def take_over(model: Conditioned, source: Settings, settings: Settings, folder: Path) -> None:
    """Give a model the network of a run that stands beside its folder, frozen, and the mean of its rows."""
    trained = model_of(source)
    running.restore(trained, SYSTEM.folder(folder.parent, settings.start, source.seed))
    model.network.load_state_dict(trained.network.state_dict())
    model.network.requires_grad_(False)
    with torch.no_grad():
        for mine, rows in zip(model.condition.parameters(), trained.condition.parameters(), strict=True):
            mine.copy_(rows.mean(0, keepdim=True))


def ratios(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of what sharing costs: the style loss of eight styles in one network as a share of that of
    eight networks, and of a row trained alone as a share of that of a ninth network."""
    runs: dict[tuple[str, int, int], dict[str, Any]] = {}
    of_photographs = any(one["settings"]["photographs"] for one in found)  # and not of shapes, if there are
    for one in found:
        own, changed = one["settings"], SYSTEM.changed(one).keys()
        # tuning's runs are no part of it
        if changed <= {"style", "photographs"} and own["photographs"] == of_photographs:
            runs[one["arm"], own["seed"], own["style"]] = one
    rows = []
    for arm, style, beside in (("many", -1, range(8)), ("ninth-row", 8, (8,))):
        compared = []
        for seed in sorted(seed for name, seed, of in runs if (name, of) == (arm, style)):
            shared = runs[arm, seed, style]
            alone = [runs[key] for k in beside if (key := ("separate", seed, k)) in runs]
            if len(alone) == len(beside):
                compared.append(ratio(shared, alone))
        if compared:
            setting = {
                k: v for k, v in runs[arm, compared[0]["seed"], style]["settings"].items() if k != "seed"
            }
            command = f"python {SYSTEM.script} write"
            row = committed.record(
                SYSTEM.name, arm, setting, "style-loss-ratio", compared, command, SYSTEM.over
            )
            rows.append(SYSTEM.completed(row))
    return rows


def ratio(shared: Mapping[str, Any], alone: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A run's mean style loss as a share of that of others, and its interval over the pictures, which are the
    same."""
    above = np.array(shared["by_picture"]["test"])
    below = np.mean([one["by_picture"]["test"] for one in alone], 0)
    value = above.mean() / below.mean()
    content = [one["scores"]["test"]["content-loss"]["value"] for one in (shared, *alone)]
    each = {name: value for one in alone for name, value in one["by_style"]["test"].items()}
    return {
        "seed": shared["settings"]["seed"],
        "value": float(value),
        "ci95": interval(((above - value * below) / below.mean()).tolist()),
        "style_loss": float(above.mean()),
        "style_loss_alone": float(below.mean()),
        "content_loss_ratio": content[0] / (sum(content[1:]) / len(alone)),
        **{f"ratio_{k}": v / each[k] for k, v in shared["by_style"]["test"].items()},
        **shared["beside"],
        "parameters_alone": sum(one["parameters"] for one in alone),
        "training_seconds_alone": sum(one["training_seconds"] for one in alone),
        **{k: shared[k] for k in ("parameters", "training_seconds", "hardware", "commit")},
    }


@torch.no_grad()
def draw(options: argparse.Namespace, _found: list[dict[str, Any]]) -> None:
    """Two photographs in all nine styles, below the styles themselves, and one on its way from style to
    style: docs/styles.png."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    size, gap = 128, 4
    photographs = torch.stack([square(picture, size) for picture in load_sample_images().images])
    models = []
    for arm in ("many", "ninth-row"):
        settings = SYSTEM.settings(arm, [f"seed={options.seed}", *options.set])
        models.append(model_of(settings))
        running.restore(models[-1], SYSTEM.folder(options.runs, arm, options.seed, options.set))
    many, ninth = models
    rows = [[torch.ones(3, size, size), *(texture(name, size) for name in NAMES)]]
    for picture in photographs:
        painted = many(picture.expand(8, -1, -1, -1), torch.arange(8))
        rows.append([picture, *painted, ninth(picture[None], torch.tensor([0]))[0]])
    shares = torch.linspace(0, 1, 9)
    weights = torch.zeros(9, 8)
    weights[:, 2], weights[:, 7] = 1 - shares, shares
    rows.append([photographs[0], *many(photographs[:1].expand(9, -1, -1, -1), weights)])
    whole = torch.ones(3, len(rows) * (size + gap) - gap, 10 * (size + gap) - gap)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            y, x = i * (size + gap), j * (size + gap)
            whole[:, y : y + size, x : x + size] = tile
    picture = Image.fromarray((whole * 255).round().byte().permute(1, 2, 0).numpy())
    path = ROOT / "docs" / "styles.png"
    atomic_write(path, lambda file: picture.quantize(256).save(file, "PNG", optimize=True))
    print(path)


def square(picture: np.ndarray, size: int) -> Tensor:
    """The middle of a photograph, uint8 ``[H, W, 3]`` -> ``[3, size, size]`` from 0 to 1."""
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    side = min(image.shape[1:])
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    image = image[None, :, top : top + side, left : left + side]
    return nn.functional.interpolate(image, (size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)


def texture(name: str, size: int) -> Tensor:
    return torch.from_numpy(textures.draw(name, size)).permute(2, 0, 1).float() / 255


SYSTEM = System(
    "styles",
    Settings(),
    train,
    "test pictures",
    f"{SCORED} test pictures in each style",
    ratios,
    test=test,
    arm="many",
    more={"draw": draw},
)

if __name__ == "__main__":
    SYSTEM.start(__doc__)
