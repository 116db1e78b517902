"""What the command line's tests share: drawn pictures, and a tiny run trained on them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from metafilm.cli import main

SIZE = 16


def draw(path: Path, kind: int, seed: int, size: int = SIZE, mode: str = "RGB") -> None:
    """A picture of class `kind`: a bright bar or square whose place and hue tell the class."""
    generator = np.random.default_rng([kind, seed])
    pixels = generator.integers(0, 40, (size, size, 3))
    where = size * (kind % 4) // 4
    region = (
        (slice(None), slice(where, where + size // 4)) if kind < 4 else (slice(where, where + size // 4),)
    )
    pixels[region + (slice(None),) * (2 - len(region))] += np.array([200, 100 + 20 * (kind % 3), 10 * kind])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(path)


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder with pictures/{train,val,test}/<class>/, a configuration, and the run trained from it."""
    place = tmp_path_factory.mktemp("cli")
    for split, kinds in (("train", range(8)), ("val", range(8, 11)), ("test", range(11, 15))):
        for kind in kinds:
            for seed in range(5):
                draw(place / "pictures" / split / f"kind{kind}" / f"{seed}.png", kind % 8, seed)
    settings = {
        "name": "tiny",
        "data": {"name": f"folder:{place / 'pictures'}", "image_size": SIZE},
        "episodes": {"ways": 3, "shots": 1, "queries": 2},
        "backbone": {"width": 4},
        "encoder": {"width": 4},
        "inner": {"steps": 1},
        "outer": {"iterations": 6, "meta_batch": 2, "warmup": 1},
        "evaluation": {"every": 3, "episodes": 4, "shots": 1, "adapt": "always"},
    }
    (place / "tiny.yaml").write_text(yaml.safe_dump(settings))
    arguments = [
        str(place / "tiny.yaml"),
        "--run-dir",
        str(place / "run"),
        "--data-root",
        str(place / "root"),
    ]
    with warnings.catch_warnings():  # four validation tasks say little, and may look like overfitting
        warnings.filterwarnings("ignore", ".*overfits its training classes", UserWarning)
        assert main(["train", *arguments]) == 0
    return place


@pytest.fixture
def pictures(tmp_path) -> tuple[Path, Path]:
    """Support and query folders of any size and mode, each with a picture that can't be read."""
    for kind in range(3):
        for seed in range(3):
            draw(tmp_path / "support" / f"kind{kind}" / f"{seed}.png", kind, seed, size=20 + 7 * seed)
            draw(
                tmp_path / "query" / f"kind{kind}" / f"{seed}.png",
                kind,
                10 + seed,
                mode=("L", "RGBA", "P")[seed],
            )
    for part in ("support", "query"):
        (tmp_path / part / "kind0" / "broken.png").write_bytes(b"no picture")
    draw(tmp_path / "query" / "loose.png", 1, 30)
    return tmp_path / "support", tmp_path / "query"
