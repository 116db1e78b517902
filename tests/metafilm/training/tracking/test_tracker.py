"""Metrics always reach the run directory; wandb, the real package, works offline and is missed politely."""

import socket
import sys
from dataclasses import replace

import pytest

from metafilm.config.config import Config
from metafilm.errors import MetafilmError
from metafilm.storage.run import RunDirectory
from metafilm.training.tracking import Tracker

OFFLINE = replace(Config(), tracking=replace(Config().tracking, wandb="offline"))


def test_without_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    with RunDirectory.open(tmp_path / "run", Config()) as run:
        with Tracker(run, Config()) as tracker:
            tracker.log({"iteration": 1, "loss": 0.5})
            tracker.finish({"accuracy": 1.0})
            tracker.finish()
        assert run.read_metrics() == [{"iteration": 1, "loss": 0.5}]


def test_asking_for_absent_wandb_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        RunDirectory.open(tmp_path / "run", OFFLINE) as run,
        pytest.raises(MetafilmError, match=r'pip install "metafilm\[wandb\]"'),
    ):
        Tracker(run, OFFLINE)


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning:wandb")
def test_real_wandb_offline_without_network(tmp_path, monkeypatch, capfd):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    reached = []
    connect = socket.socket.connect

    def only_local(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            reached.append(address)
            raise OSError("no network in this test")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_local)
    ids = set()
    for iteration in (1, 2):  # the second time it resumes
        with RunDirectory.open(tmp_path / "run", OFFLINE) as run:
            with Tracker(run, OFFLINE) as tracker:
                assert wandb.run is not None
                ids.add(wandb.run.id)
                assert wandb.run.settings.mode == "offline"
                assert wandb.run.config["outer"]["meta_batch"] == OFFLINE.outer.meta_batch
                tracker.log({"iteration": iteration, "loss": float("nan"), "accuracy": 20.0 * iteration})
                tracker.finish({"accuracy": 40.0, "stages": ["identity"]})
            assert wandb.run is None
            assert [record["accuracy"] for record in run.read_metrics()] == [20.0, 40.0][:iteration]
    assert reached == [] and len(ids) == 1
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert files and all(file.stat().st_size > 0 for file in files)
    assert capfd.readouterr().out == ""
