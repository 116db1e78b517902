"""Accuracy, its interval, the stages, whose support the encoder reads."""

import math

import numpy as np
import pytest
import torch

from episodes import EpisodeSampler
from episodes.datasets.sinusoids import SinusoidSampler
from metafilm import MetafilmError, evaluate, evaluation


def test_interval_against_numpy() -> None:
    values = np.random.default_rng(0).uniform(0, 100, 37)
    expected = 1.96 * values.std(ddof=1) / math.sqrt(37)
    assert evaluation.interval(values.tolist()) == pytest.approx(expected, rel=1e-12)
    assert evaluation.interval([40.0, 40.0]) == 0
    assert math.isnan(evaluation.interval([40.0]))


def test_against_one_episode_after_another(make_learner, sampler) -> None:
    learner = make_learner(inner={"steps": 2}).train()
    found = evaluate(learner, sampler, 20)
    assert learner.training, "put back into training mode"
    learner.eval()
    rows = []
    for i in range(20):
        episode = sampler[i]
        outcome = learner(episode, all_stages=True)
        hits = [(p.argmax(-1) == episode.query_labels).float().mean().item() for p in outcome.predictions]
        rows.append([100 * hit for hit in hits])
    table = np.array(rows)
    assert found["stages"] == ["identity", "encoder", "step 1", "step 2"]
    np.testing.assert_allclose(found["accuracy_by_step"], table.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["ci95_by_step"], 1.96 * table.std(0, ddof=1) / math.sqrt(20), rtol=1e-6)
    assert found["accuracy"] == found["accuracy_by_step"][-1] and found["ci95"] == found["ci95_by_step"][-1]
    assert len(set(found["accuracy_by_step"])) > 1
    assert (found["episodes"], found["steps"], found["encoder_support"]) == (20, 2, "own")
    assert found["wall_seconds"] > 0


def test_the_number_of_tasks_per_pass_does_not_matter(make_learner, pool) -> None:
    learner = make_learner(inner={"steps": 1})
    sampler = EpisodeSampler(pool, ways=(2, 4), shots=(1, 2), queries=2, seed=3)
    found = [evaluate(learner, sampler, 18, max_tasks=tasks) for tasks in (1, 5)]
    for name in ("accuracy_by_step", "ci95_by_step"):
        assert found[0][name] == pytest.approx(found[1][name])


def test_the_last_stage_alone(make_learner, sampler) -> None:
    learner = make_learner(inner={"steps": 1})
    found, whole = evaluate(learner, sampler, 6, by_stage=False), evaluate(learner, sampler, 6)
    assert found["stages"] == ["step 1"] and found["accuracy"] == whole["accuracy"]
    assert evaluate(learner, sampler, 6, steps=0)["stages"] == ["identity", "encoder"]


class Recorder(torch.nn.Module):
    """Stands before a learner's encoder and remembers what it read."""

    def __init__(self, encoder) -> None:
        super().__init__()
        self.encoder, self.read = encoder, []

    def forward(self, members):
        self.read.append(members.clone())
        return self.encoder(members)


@pytest.mark.parametrize("max_tasks", [1, 3])
def test_shuffled_support_is_the_next_task_s(make_learner, sampler, max_tasks) -> None:
    learner = make_learner()
    learner.encoder = Recorder(learner.encoder)
    own = evaluate(learner, sampler, 5, max_tasks=max_tasks)
    read_own, learner.encoder.read = torch.cat(learner.encoder.read), []
    shuffled = evaluate(learner, sampler, 5, encoder_support="shuffled", max_tasks=max_tasks)
    read_shuffled = torch.cat(learner.encoder.read)
    assert len(read_own) == 5
    torch.testing.assert_close(read_shuffled, read_own.roll(-1, dims=0))
    assert (read_shuffled - read_own).abs().amax((1, 2)).min() > 1e-3
    assert shuffled["encoder_support"] == "shuffled"
    assert shuffled["accuracy_by_step"][0] == own["accuracy_by_step"][0]


def test_shuffled_support_with_tasks_of_several_shapes(make_learner, pool) -> None:
    sampler = EpisodeSampler(pool, ways=(2, 4), shots=(1, 2), queries=2, seed=3)
    learner = make_learner()
    assert 0 <= evaluate(learner, sampler, 8, encoder_support="shuffled")["accuracy"] <= 100
    with pytest.raises(MetafilmError, match="shuffled support needs tasks of one shape"):
        evaluate(learner, sampler, 8, encoder_support="shuffled", max_tasks=8)


def test_no_encoder(make_learner, sampler) -> None:
    learner = make_learner(inner={"steps": 1})
    found = evaluate(learner, sampler, 4, encoder_support="none")
    assert found["stages"] == ["identity", "step 1"] and found["encoder_support"] == "none"
    assert evaluate(make_learner(encoder={"enabled": False}), sampler, 4)["encoder_support"] == "none"


def test_regression_has_the_mean_squared_error(make_learner) -> None:
    learner = make_learner(
        shape=(1,),
        dtype=torch.float32,
        data={"name": "sinusoids", "image_size": None},
        backbone={"name": "mlp", "hidden": [6, 6]},
        head={"name": "regression"},
    )
    sampler = SinusoidSampler(shots=5, queries=4, seed=0)
    found = evaluate(learner, sampler, 6, max_tasks=6)
    episode = sampler.batch(range(6))
    expected = (learner.eval()(episode).predictions[-1] - episode.query_labels).square().mean()
    assert found["mse"] == pytest.approx(expected.item(), rel=1e-4) and "accuracy" not in found
    assert found["mse_by_step"][-1] == found["mse"]


def test_errors(make_learner, sampler) -> None:
    learner = make_learner()
    with pytest.raises(MetafilmError, match="1 episodes give no interval"):
        evaluate(learner, sampler, 1)
    with pytest.raises(MetafilmError, match="unknown encoder support 'other'; expected own, shuffled, none"):
        evaluate(learner, sampler, 4, encoder_support="other")
    with pytest.raises(MetafilmError, match="has no task encoder"):
        evaluate(make_learner(encoder={"enabled": False}), sampler, 4, encoder_support="shuffled")
