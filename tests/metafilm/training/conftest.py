"""Training on the pool of the fixtures."""

from pathlib import Path

import pytest

from episodes import EpisodeSampler
from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.storage.run import RunDirectory
from metafilm.training import data
from metafilm.training import run as training
from metafilm.training.tracking import Tracker


@pytest.fixture
def in_memory(monkeypatch, pool):
    """`train` on the pool of the fixtures, whatever the configuration names."""

    def source(config, *args, seed=None, **kwargs) -> Source:
        return Source(EpisodeSampler(pool, 3, 2, 2, config.seed if seed is None else seed), (pool,))

    monkeypatch.setattr(data, "training_source", source)
    monkeypatch.setattr(data, "evaluation_source", source)
    monkeypatch.setattr(data, "require_disjoint", lambda *_: None)  # one pool for both
    monkeypatch.setattr(training, "keep_freed_memory", lambda: None)


@pytest.fixture(name="run")
def run_fixture(in_memory):
    """`run(config, folder)`: train there, or go on."""

    def run(config: Config, folder: Path) -> RunDirectory:
        with RunDirectory.open(folder, config) as directory:
            training.train(config, directory, Tracker(directory, config), progress=False)
        return directory

    return run
