"""What all tests share: one thread, no progress bars, and skipping what needs absent data."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["METAFILM_PROGRESS"] = "never"
os.environ["WANDB_MODE"] = "offline"  # whatever a test does, nothing goes out

from pathlib import Path

import pytest
import torch
from PIL import Image

import episodes

torch.set_num_threads(1)

REAL_DATA = ("omniglot", "miniimagenet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`@pytest.mark.real` needs all real data sets, `@pytest.mark.real("omniglot")` the one it names."""
    root = episodes.data_root()
    for item in items:
        for mark in item.iter_markers("real"):
            absent = [name for name in mark.args or REAL_DATA if not (root / name).is_dir()]
            if absent:
                item.add_marker(pytest.mark.skip(reason=f"no {' or '.join(absent)} under {root}"))


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    """examples/{a,b}/1.png ... 5.png and unknown/1.png, 2.png: one more of a, one of b."""
    monkeypatch.chdir(tmp_path)
    pool = episodes.load("strokes", "val")
    for number, name in enumerate("ab"):
        (tmp_path / "examples" / name).mkdir(parents=True)
        (tmp_path / "unknown").mkdir(exist_ok=True)
        drawings = pool.images[20 * number : 20 * number + 6, 0].numpy()
        for shot, drawing in enumerate(drawings[:5], 1):
            Image.fromarray(drawing).save(tmp_path / "examples" / name / f"{shot}.png")
        Image.fromarray(drawings[5]).save(tmp_path / "unknown" / f"{number + 1}.png")
    return tmp_path
