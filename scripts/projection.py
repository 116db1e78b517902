"""What published trainings of all classes would cost here: results/projection.json.

    python scripts/projection.py --threads 2
    python scripts/projection.py --device cuda       # the same on a GPU, beside the first

Seconds of a step of the classification stage on miniImageNet (batches of 128 at 84x84, bfloat16, images
augmented in the background) are measured for Conv-4 and ResNet-12 (64-128-256-512 maps, as TADAM has them:
Oreshkin et al. 2018), and multiplied out: how many images fit into so many hours, and how long the 3.84
million images take of which RFS's trainings consist (100 epochs: Tian et al. 2020). A projection from a
minute's measurement, no accuracy. Records of other devices and networks that are there are kept.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from metafilm import film, norms  # noqa: E402
from metafilm.config import Config  # noqa: E402
from metafilm.config.sources import plain_source, training_source  # noqa: E402
from metafilm.engine.device import device_named  # noqa: E402
from metafilm.learner import build_learner  # noqa: E402
from metafilm.learner.learner import MetaFiLM  # noqa: E402
from metafilm.training.plain import Pretraining  # noqa: E402
from scripts.comparing.plans import stage_seconds  # noqa: E402
from scripts.records import commit, hardware, put  # noqa: E402

OUT = ROOT / "results" / "projection.json"
RFS_IMAGES = 100 * 38_400
HOURS = {"cpu": 2.5, "cuda": 1.0}
BACKBONES: dict[str, dict[str, Any]] = {
    "conv4": {"name": "conv4", "pools": 3, "pooling": "mean"},
    "resnet12": {"name": "resnet12"},
}
KEY = ("device", "backbone", "dataset", "image_size", "batch", "threads")
TRAINING = 3  # a step's operations, as multiples of the forward pass's


def settings(backbone: str, dataset: str, size: int, batch: int) -> Config:
    """Of a training that is all classification stage."""
    return Config.from_dict(
        {
            "data": {"name": dataset, "image_size": size},
            "backbone": BACKBONES[backbone],
            "encoder": {"enabled": False},
            "inner": {"steps": 0},
            "head": {"name": "cosine"},
            "outer": {"precision": "bfloat16"},
            "pretrain": {"iterations": 1000, "batch": batch, "classifier": "cosine"}
            | {"average": 0.999, "augment": "crop-flip"},
        }
    )


def forward_operations(learner: MetaFiLM, config: Config) -> float:
    """Floating-point operations of one image's way through the network, two a multiplication and addition."""
    network = norms.plain(film.remove(learner.backbone)).float().eval()
    channels, height, width = learner.image_shape
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, channels, height, width, device=learner.mean.device))
    return counter.get_total_flops()


def projected(
    backbone: str, device: str, dataset: str, size: int, batch: int, root: Path | None
) -> dict[str, Any]:
    """One measurement, and what follows from it."""
    config = settings(backbone, dataset, size, batch)
    source = training_source(config, root)
    learner = build_learner(config, **source.build).to(device)  # type: ignore[arg-type]
    learner = learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stage = Pretraining(learner, config, plain_source(config, source.pools))
    rate = batch / stage_seconds(stage)  # a step reads its loss, so that a GPU has done it
    forward = forward_operations(learner, config)
    hours = HOURS[torch.device(device).type]
    return {
        "backbone": backbone,
        "device": torch.device(device).type,
        "dataset": dataset,
        "image_size": size,
        "batch": batch,
        "precision": config.outer.precision,
        "threads": torch.get_num_threads(),
        "images_per_second": rate,
        "forward_gflop": forward / 1e9,
        "gflop_per_second": TRAINING * forward * rate / 1e9,
        "hours": hours,
        "images_in_hours": 3600 * hours * rate,
        "rfs_images": RFS_IMAGES,
        "rfs_hours": RFS_IMAGES / rate / 3600,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A row per network and device."""
    lines = [
        "| network, device | images / s | GFLOP / s | images in so many hours | hours for RFS's images |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        threads = f", {row['threads']} threads" if row["device"] == "cpu" else ""
        size = row["image_size"]
        lines.append(
            f"| {row['backbone']}, {size}×{size}, {row['device']}{threads} | "
            f"{row['images_per_second']:.0f} | {row['gflop_per_second']:.0f} | "
            f"{row['images_in_hours'] / 1e6:.2f} million in {row['hours']:g} | {row['rfs_hours']:.1f} |"
        )
    return "\n".join(lines)


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", choices=list(BACKBONES), default=list(BACKBONES))
    parser.add_argument("--device", choices=list(HOURS), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dataset", default="miniimagenet")
    parser.add_argument("--image-size", type=int, default=84)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    device_named(arguments.device)  # says if there is none
    given = ("backbones", "device", "threads", "dataset", "image_size", "batch")
    flags = [f"--{name.replace('_', '-')} {_text(getattr(arguments, name))}" for name in given]
    command = " ".join(["python scripts/projection.py", *flags])
    rows = [
        projected(
            backbone,
            arguments.device,
            arguments.dataset,
            arguments.image_size,
            arguments.batch,
            arguments.data_root,
        )
        | {"command": command, "hardware": hardware(arguments.device), "commit": commit()}
        for backbone in arguments.backbones
    ]
    found = put(arguments.out, rows, lambda row: tuple(row[name] for name in KEY))
    print(table(found))
    print(f"{len(found)} records in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
