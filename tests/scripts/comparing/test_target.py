"""Minutes to an accuracy."""

import json
import time
from dataclasses import replace
from itertools import count

import pytest

from episodes.sampling.prefetch import BaseSampler
from metafilm.config import Config
from scripts import compare
from scripts.comparing import ours, plans
from scripts.comparing.works import WORKS


@pytest.mark.slow
def test_minutes_to_a_target_begin_with_the_first_step_of_the_classification_stage(run, tmp_path) -> None:
    run("score", "--budget", "target", "--system", "metafilm", "--seconds", "1")
    row = json.loads((tmp_path / "tiny" / "target" / "metafilm-val-4.json").read_text())
    assert row["iterations"][0] > 0
    assert row["planned_seconds"] == 1.0
    assert row["seconds_missed_by"] == pytest.approx(100 * (row["training_seconds"] - 1))
    first = row["curve"][0][0]
    assert 0.3 * row["training_seconds"] < first < 0.9 * row["training_seconds"], "0.6 of it, about"


@pytest.mark.slow
def test_the_classification_stage_alone(run, tmp_path) -> None:
    run("score", "--budget", "target", "--system", "metafilm-pretrained", "--seconds", "1")
    row = json.loads((tmp_path / "tiny" / "target" / "metafilm-pretrained-val-4.json").read_text())
    before, after = row["iterations"]
    assert before > 1 and after == 1 and len(row["curve"]) == 2 and row["curve"][0][0] > 0
    config = Config.from_yaml(
        tmp_path / "tiny" / "target" / "metafilm-pretrained" / "1" / "run" / "config.yaml"
    )
    assert (config.backbone.pools, config.backbone.pooling, config.pretrain.iterations) == (3, "mean", before)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "tried"), [(1.0, [0.25]), (101.0, [0.25, 0.5])])
def test_time_to_a_target_is_of_the_shortest_training_that_reaches_it(
    tiny, run, tmp_path, monkeypatch, target, tried
) -> None:
    monkeypatch.setitem(WORKS, "tiny", replace(tiny, target=target))
    run("list", "--budget", "target", "--system", "metafilm-wide")
    run("score", "--budget", "target", "--system", "metafilm-wide")
    row = json.loads((tmp_path / "tiny" / "target" / "metafilm-wide-val-4.json").read_text())
    assert row["tried_seconds"] == tried and row["planned_seconds"] == tried[-1]
    assert (row["minutes_to_target"] is not None) == (target < 100)
    trained = tmp_path / "tiny" / "target" / "metafilm-wide"
    assert {one.name for one in trained.iterdir() if one.is_dir()} == {f"{seconds:g}" for seconds in tried}
    assert "--seconds" not in row["command"] and row["ways"] == tiny.ways
    config = Config.from_yaml(trained / f"{tried[-1]:g}" / "run" / "config.yaml")
    assert (config.episodes.ways, config.evaluation.ways, config.outer.meta_batch) == (5, 3, 1)
    assert row["images"] == row["iterations"][1] * 5 * (tiny.shots + tiny.queries)


def test_seconds_of_a_step_are_those_with_episodes_built_ahead() -> None:
    """What is slower, building or learning, decides; in line it would be their sum."""
    learned = []

    class Slow(BaseSampler):
        def shapes(self, indices):
            return [0] * len(indices)

        def batch(self, indices):
            time.sleep(0.02)
            return indices[0]

    def step(batch) -> None:
        learned.append(batch)
        time.sleep(0.02)

    seconds = plans.mean_seconds(step, Slow().prefetch([i] for i in count()))
    assert learned == [[i] for i in range(plans.FIRST + plans.PROBE)] and 0.019 < seconds < 0.035


def test_time_to_a_target_leaves_validations_out() -> None:
    curve = ours.curve_of(
        [
            {"iteration": 1, "seconds": 5.0},
            {"iteration": 2, "seconds": 60.0, "validation_accuracy": 50.0, "validation_seconds": 12.0},
            {"iteration": 4, "seconds": 120.0, "validation_accuracy": 70.0, "validation_seconds": 10.0},
        ]
    )
    assert curve == [(48.0, 50.0), (98.0, 70.0)]
    assert compare.minutes_to(60.0, curve) == 98 / 60 and compare.minutes_to(71.0, curve) is None
