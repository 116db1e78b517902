"""A finished run at Weights & Biases: its tables and pictures tell the truth, and its weights come along."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import episodes
from metafilm.cli.commands import main
from metafilm.config.sources import Source
from metafilm.learner.build import load_learner
from metafilm.training.tracking import conclusion
from metafilm.training.tracking.pictures import CELL, DARKEST, FRAME, WRONG, heat, sheet
from metafilm.training.tracking.worst import Query, Worst, as_picture, class_names, worst_episode

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


def test_wrong_queries_are_framed() -> None:
    black = np.zeros((5, 5), np.uint8)
    colour = np.full((5, 5, 3), 9, np.uint8)
    queries = [Query(black, "a", "a", 0.9), Query(black, "a", "b", 0.6), Query(colour, "b", "b", 0.8)]
    found = sheet(Worst(3, 66.7, [[black], [colour]], queries))
    side = 5 + 2 * FRAME
    assert found.shape[0] == 2 * side
    red = (found == WRONG).all(-1)
    assert red[:side].sum() == side**2 - 25 and not red[side:].any()
    columns = red[:side].any(0).nonzero()[0]
    assert columns[-1] - columns[0] == side - 1 and columns[-1] == found.shape[1] - 1  # the last of its row


@pytest.fixture(scope="module")
def source() -> Source:
    pool = episodes.load("strokes", "val")
    return Source(episodes.EpisodeSampler(pool, ways=5, shots=1, queries=3, seed=3), (pool,))


def test_the_worst_episode_is_the_worst(source) -> None:
    learner = load_learner("omniglot-conv4")
    found = worst_episode(learner, source, 20)
    accuracies = []
    with torch.no_grad():
        for number in range(20):
            episode = source.sampler.batch([number])
            named = learner(episode).predictions[-1].argmax(-1)
            accuracies.append(100 * float((named == episode.query_labels).double().mean()))
    assert found.accuracy == pytest.approx(min(accuracies)) and min(accuracies) < max(accuracies)
    assert found.number == accuracies.index(min(accuracies))
    right = [query.named == query.label for query in found.queries]
    assert 100 * sum(right) / len(right) == pytest.approx(found.accuracy)
    episode = source.sampler.batch([found.number])
    assert np.array_equal(found.queries[4].picture, as_picture(episode.query_images[0, 4]))
    assert episode.class_ids is not None
    names = [source.pools[0].class_names[i] for i in episode.class_ids[0].tolist()]
    assert [query.label for query in found.queries] == [names[i] for i in episode.query_labels[0].tolist()]
    assert not learner.training


def test_values_of_a_criterion_go_by_number(source) -> None:
    """Their ids count values, and there is one pool however many criteria."""
    episode = source.sampler.batch([0])
    of_criterion = replace(episode, pool_ids=torch.tensor([3]))
    assert class_names(source, of_criterion) == ["0", "1", "2", "3", "4"]
    several = Source(source.sampler, source.pools * 2)
    assert class_names(several, replace(episode, pool_ids=torch.tensor([1]))) == class_names(source, episode)


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
    assert len(queries["data"]) == 5 * 3
    pictures = {path.name.rsplit("_", 2)[0] for path in (media / "images").glob("*.png")}
    assert {"worst_episode_picture", "deviations_picture"} <= pictures
    (artifact,) = (one for one in logged if one.type == "model")  # tables are kept as artifacts too
    assert set(artifact.manifest.entries) == {"model.safetensors", "config.yaml"}
    assert artifact.metadata["outer"]["learning_rate"] == 0.004
    assert "best validation" in capfd.readouterr().out


def test_without_wandb_nothing_is_said(tmp_path, source) -> None:
    from metafilm.config.config import Config
    from metafilm.storage.run import RunDirectory
    from metafilm.training.tracking import Tracker

    config = replace(Config(), name="quiet")
    with RunDirectory.open(tmp_path / "run", config) as run, Tracker(run, config) as tracker:
        before = set(run.path.iterdir())
        tracker.conclude(source)
        assert set(run.path.iterdir()) == before
