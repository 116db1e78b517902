"""A training of less than a second, on small pictures of bars."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metafilm.config import Config

SIZE = 16


@pytest.fixture(scope="session")
def bars(tmp_path_factory) -> Path:
    """train/, val/ and test/ with 8, 4 and 3 classes of six noisy pictures."""
    place = tmp_path_factory.mktemp("bars")
    generator = np.random.default_rng(0)
    for split, kinds in (("train", range(8)), ("val", range(8, 12)), ("test", range(12, 15))):
        for kind in kinds:
            folder = place / split / f"kind{kind:02}"
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = generator.integers(0, 120, (SIZE, SIZE))
                pixels[kind : kind + 2] += 90
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return place


@pytest.fixture
def tiny(bars, monkeypatch) -> Config:
    """Six iterations, validated after each second, checkpoints after each."""
    monkeypatch.setenv("METAFILM_DATA", str(bars / "root"))
    return Config.from_dict(
        {
            "name": "tiny",
            "threads": 1,
            "data": {"name": f"folder:{bars}", "image_size": SIZE},
            "episodes": {"ways": 3, "shots": 1, "queries": 2},
            "backbone": {"width": 4},
            "encoder": {"width": 4},
            "outer": {"iterations": 6, "meta_batch": 2, "warmup": 1, "task_chunk": 1, "query_chunk": 1},
            "evaluation": {
                "every": 2,
                "episodes": 8,
                "adapt": "always",  # so that trials differ
                "checkpoint_every_seconds": 0.0,
            },
        }
    )
