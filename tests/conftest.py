"""What all tests share: one thread, no progress bars, and skipping what needs absent data."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["METAFILM_PROGRESS"] = "never"
os.environ["WANDB_MODE"] = "offline"  # whatever a test does, nothing goes out

import pytest
import torch

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
