"""A work that trains in moments, and compare.py on it."""

import json

import pytest
import torch

from scripts import compare
from scripts.comparing.works import WORKS, Work


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The work, one of ``WORKS`` meanwhile."""
    before = torch.get_num_threads()
    made = Work(
        "tiny",
        "strokes",
        28,
        1,
        3,
        1,
        2,
        "affine",
        images=600,
        seconds=5.0,
        target=10.0,
        ladder=(0.25, 0.5),
        test_tasks=4,
        backbone={"name": "conv4", "width": 4},
        pretrain={"batch": 16, "classifier": "cosine"},
        many_ways=5,
        cell_pools=2,
        validation_tasks=2,
        meta_batch=2,
    )
    monkeypatch.setitem(WORKS, "tiny", made)
    yield made
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path):
    """(action, *words, ends) -> compare.py in this test's folder, which must end so."""

    def command(action: str, *words: str, ends: int = 0) -> None:
        common = ["--folder", str(tmp_path), "--work", "tiny", "--threads", "1", "--split", "val"]
        assert compare.main([action, *common, "--out", str(tmp_path / "out.json"), *words]) == ends

    return command


@pytest.fixture
def written(tmp_path):
    """The committed file's records, by system."""
    return lambda: {row["system"]: row for row in json.loads((tmp_path / "out.json").read_text())}


@pytest.fixture
def learn2learn() -> None:
    pytest.importorskip("learn2learn", exc_type=ImportError)
