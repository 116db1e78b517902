"""What is judged is what the task would say, and what is kept is what was judged."""

import pytest
import torch

from episodes import EpisodeSampler
from metafilm import MetafilmError
from metafilm.evaluation import calibrated, fit_temperature, judge


@pytest.fixture
def learner(make_learner):
    return make_learner(dtype=torch.float32)


@pytest.mark.parametrize("head", ["prototype", "cosine", "ridge"])
def test_judgements_are_the_task_s_own(head, make_learner, pool) -> None:
    """Of 2 of an episode's 4 classes, against adapting to those two classes' pictures one task at a time."""
    learner = make_learner(dtype=torch.float32, head={"name": head}, inner={"views": 0})
    sampler = EpisodeSampler(pool, ways=4, shots=2, queries=3, seed=1)
    found = judge(learner, sampler, 3, ways=2, progress=False)
    for number in range(3):
        episode = sampler[number]
        labels, queries = episode.support_labels[0], episode.query_labels[0]
        order = labels.argsort(stable=True)[:4]
        task = learner.adapt(episode.support_images[0, order], labels[order])
        inside = queries < 2
        images = episode.query_images[0]
        torch.testing.assert_close(found.logits[number], task.logits(images[inside]), atol=1e-4, rtol=1e-4)
        assert torch.equal(found.labels[number], queries[inside])
        for scores, rows in ((found.known, inside), (found.unknown, ~inside)):
            torch.testing.assert_close(scores[number], task.familiarity(images[rows]), atol=1e-4, rtol=1e-4)


def test_more_classes_than_there_are(learner, pool) -> None:
    with pytest.raises(MetafilmError, match="4 known classes of 3"):
        judge(learner, EpisodeSampler(pool, 3, 1, 1, 0), 2, ways=4, progress=False)


def test_the_threshold_raises_as_many_false_alarms_as_asked(learner, pool) -> None:
    """At each number of shots, each with the temperature of its own."""
    samplers = [EpisodeSampler(pool, ways=3, shots=shots, queries=3, seed=1) for shots in (4, 1)]
    found, judged = calibrated(learner, samplers, 40, {"split": "val"}, progress=False)
    assert found.weights == learner.fingerprint() and [level.shots for level in found.levels] == [1, 4]
    for shots, part in judged.items():
        assert len(part.known) == 40
        temperature = fit_temperature(torch.cat(part.logits), torch.cat(part.labels))
        assert found.temperature(shots) == pytest.approx(temperature, rel=1e-5)
        scores = torch.cat(part.known)
        for rate in (0.01, 0.05, 0.3):
            share = float((scores < found.threshold(rate, shots)).double().mean())
            assert share == pytest.approx(rate, abs=0.004)


def test_two_samplers_of_the_same_shots(learner, pool) -> None:
    sampler = EpisodeSampler(pool, ways=3, shots=2, queries=3, seed=1)
    with pytest.raises(MetafilmError, match=r"2 samplers of tasks of \[2\] shots"):
        calibrated(learner, [sampler, sampler], 40, {}, progress=False)
