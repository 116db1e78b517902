"""A finished run at Weights & Biases: its tables and pictures tell the truth, and its weights come along."""

import json

import numpy as np
import pytest
import torch

import episodes
from metafilm.cli.commands import main
from metafilm.cli.train import worst_of
from metafilm.config import Config, load_config
from metafilm.config.sources import evaluation_source
from metafilm.storage.run import RunDirectory
from metafilm.training.tracking import Tracker, conclusion
from metafilm.training.tracking.pictures import (
    CELL,
    DARKEST,
    FRAME,
    WRONG,
    Judged,
    as_picture,
    heat,
    query_rows,
    sheet,
)

RECORDS = [
    {"iteration": 1, "sizes": {"a.delta_gamma": 0.1, "a.delta_beta": 0.0}},
    {
        "iteration": 2,
        "sizes": {"a.delta_gamma": 0.4, "a.delta_beta": None},
        "validation_accuracy": 50.0,
        "validation_accuracy_by_step": [40.0, 50.0],
        "validation_accuracy_by_domain": {"x": 1.0},
        "validation_stages": ["identity", "encoder"],
    },
]


def test_rows_of_the_tables() -> None:
    assert conclusion.stage_rows(RECORDS) == [[2, "identity", 40.0], [2, "encoder", 50.0]]
    assert conclusion.size_rows(RECORDS)[:2] == [[1, "a.delta_gamma", 0.1], [1, "a.delta_beta", 0.0]]
    assert conclusion.artifact_name("ünder/all the sun") == "-nder-all-the-sun"


def test_deviations_are_darkest_where_they_are_largest() -> None:
    found = heat(conclusion.size_rows(RECORDS))
    assert found.shape == (2 * CELL[0], 2 * CELL[1], 3)
    cells = found[:: CELL[0], :: CELL[1]].tolist()
    assert cells[0][1] == list(DARKEST) and cells[1] == [[255] * 3] * 2
    assert 255 > cells[0][0][0] > DARKEST[0]


@pytest.fixture(scope="module")
def judged() -> Judged:
    """2-way, 1 shot, 2 queries of 28 x 28; the second query of the second class is taken for the first."""
    pool = episodes.load("strokes", "val")
    episode = episodes.EpisodeSampler(pool, ways=2, shots=1, queries=2, seed=3)[4]
    return Judged(episode, torch.tensor([[3.0, 0], [2, 0], [0, 1], [1, 0]]), 75.0, ["ka", "ru"])


def test_wrong_queries_are_framed(judged) -> None:
    found, side = sheet(judged), 28 + 2 * FRAME
    assert found.shape[0] == 2 * side
    red = (found == WRONG).all(-1)
    assert red[side:].sum() == side**2 - 28**2 and not red[:side].any()
    columns = red[side:].any(0).nonzero()[0]
    assert columns[-1] - columns[0] == side - 1 and columns[-1] == found.shape[1] - 1  # the last of its row
    picture = as_picture(judged.episode.query_images[0, 3])
    assert np.array_equal(found[-28 - FRAME : -FRAME, -28 - FRAME : -FRAME, 0], picture)


def test_each_query_has_its_line(judged) -> None:
    rows = query_rows(judged)
    assert [row[1:3] for row in rows] == [["ka", "ka"], ["ka", "ka"], ["ru", "ru"], ["ru", "ka"]]
    assert rows[0][3] == pytest.approx(1 / (1 + np.exp(-3))) and rows[0][0].dtype == np.uint8
    assert "episode 4: 75.0 % right" in conclusion.caption(judged)


def test_pictures_of_any_kind_are_bytes() -> None:
    colours = torch.rand(3, 4, 5)
    assert as_picture(colours).shape == (4, 5, 3)
    grey = torch.randint(0, 256, (1, 4, 5), dtype=torch.uint8)
    assert np.array_equal(as_picture(grey), grey[0].numpy())
    assert as_picture(torch.tensor([[[1.2, -0.1]]])).tolist() == [[255, 0]]


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning:wandb")
@pytest.mark.filterwarnings(  # wandb leaves the file open
    r"ignore:Exception ignored in. <_io.FileIO name=.*parameters.yaml:pytest.PytestUnraisableExceptionWarning"
)
def test_a_swept_run_ends_with_tables_pictures_and_weights(tmp_path, monkeypatch, capfd) -> None:
    """From the command line, offline, as an agent starts it."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parameters.yaml").write_text("{wandb_version: 1, outer.learning_rate: {value: 0.004}}")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep7")
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "parameters.yaml"))
    logged = []
    log_artifact = wandb.Run.log_artifact

    def note(run, artifact, *arguments, **options):
        logged.append(artifact)
        return log_artifact(run, artifact, *arguments, **options)

    monkeypatch.setattr(wandb.Run, "log_artifact", note)
    small = "--pretrain.iterations 2 --pretrain.batch 16 --outer.iterations 4 --outer.warmup 1"
    small += " --outer.task-chunk 4 --outer.query-chunk 4 --backbone.width 8"
    often = "--evaluation.every 2 --evaluation.episodes 6 --evaluation.queries 3 --tracking.wandb offline"
    try:
        assert main(["train", "demo", *small.split(), *often.split()]) == 0
    finally:
        wandb.teardown()
    run = tmp_path / "runs" / "demo-abc123"
    assert "learning_rate: 0.004" in (run / "config.yaml").read_text()
    (offline,) = (run / "wandb").glob("offline-run-*-abc123")
    media = offline / "files" / "media"
    tables = {path.name.partition("_table")[0]: path for path in (media / "table").rglob("*.json")}
    stages = json.loads(next(p for n, p in tables.items() if n.startswith("stages")).read_text())
    assert stages["columns"] == ["iteration", "stage", "score"]
    assert [row[:2] for row in stages["data"]] == [
        [i, stage] for i in (2, 4) for stage in ("identity", "encoder", "step 1", "step 2")
    ]
    queries = json.loads(next(p for n, p in tables.items() if n.startswith("worst_episode")).read_text())
    assert len(queries["data"]) == 5 * 3 and {row[1] for row in queries["data"]} >= {
        row[2] for row in queries["data"]
    }
    pictures = {path.name.rsplit("_", 2)[0] for path in (media / "images").glob("*.png")}
    assert {"worst_episode_picture", "deviations_picture"} <= pictures
    (artifact,) = (one for one in logged if one.type == "model")  # tables are kept as artifacts too
    assert set(artifact.manifest.entries) == {"model.safetensors", "config.yaml"}
    assert artifact.metadata["outer"]["learning_rate"] == 0.004
    assert "best validation" in capfd.readouterr().out


def test_without_wandb_nothing_is_said(tmp_path) -> None:
    def worst() -> None:
        raise AssertionError("not asked for")

    with RunDirectory.open(tmp_path / "run", Config()) as run, Tracker(run, Config()) as tracker:
        before = set(run.path.iterdir())
        tracker.conclude(worst)
        assert set(run.path.iterdir()) == before


def test_of_functions_there_is_no_worst_task(tmp_path) -> None:
    config = load_config("sinusoids")
    assert worst_of(tmp_path, evaluation_source(config, "val"), 3) is None
