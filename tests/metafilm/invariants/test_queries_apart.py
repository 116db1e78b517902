"""Queries don't see each other in evaluation, unless the norm is transductive, which the record says."""

from dataclasses import replace

import pytest
import torch

from metafilm import evaluate, norms

INDUCTIVE = [mode for mode in norms.MODES if mode != "transductive"]
HEADS = ("prototype", "cosine", "linear", "ridge", "logistic", "descriptors", "reconstruction")


def with_other_query(episode, task: int, row: int):
    images = episode.query_images.clone()
    images[task, row] = torch.rand(images[task, row].shape, generator=torch.Generator().manual_seed(99))
    return replace(episode, query_images=images)


@pytest.mark.parametrize("norm", INDUCTIVE)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tasks", [1, 2])
def test_one_changed_query_changes_its_row_alone(make_learner, make_episode, norm, head, tasks) -> None:
    learner = make_learner(backbone={"norm": norm}, head={"name": head}, inner={"steps": 2}).eval()
    assert learner.protocol == "inductive"
    episode = make_episode(tasks=tasks)
    before = learner(episode, all_stages=True)
    after = learner(with_other_query(episode, tasks - 1, 4), all_stages=True)
    for first, second in zip(before.predictions, after.predictions, strict=True):
        difference = (first - second).abs().amax(-1)  # [T, Q]
        assert difference[tasks - 1, 4] > 1e-4
        difference[tasks - 1, 4] = 0
        assert difference.max() == 0


@pytest.mark.parametrize("norm", norms.MODES)
def test_deviations_don_t_depend_on_queries(make_learner, make_episode, norm) -> None:
    for training in (False, True):
        learner = make_learner(backbone={"norm": norm}, inner={"steps": 2}).train(training)
        episode = make_episode(tasks=2)
        before, after = learner(episode), learner(with_other_query(episode, 0, 0))
        assert all(torch.equal(value, after.films[-1][name]) for name, value in before.films[-1].items())


def test_transductive_queries_do_and_the_record_says_so(make_learner, make_episode, sampler) -> None:
    learner = make_learner(backbone={"norm": "transductive"}).eval()
    episode = make_episode(tasks=2)
    difference = learner(episode).predictions[-1] - learner(with_other_query(episode, 1, 4)).predictions[-1]
    assert difference[1].abs().amax(-1).min() > 1e-6
    assert difference[0].abs().max() < 1e-12  # another task's queries are another matter
    assert learner.protocol == "transductive"
    assert evaluate(learner, sampler, 2)["protocol"] == "transductive"


@pytest.mark.parametrize("norm", INDUCTIVE)
def test_the_record_says_inductive(make_learner, sampler, norm) -> None:
    assert evaluate(make_learner(backbone={"norm": norm}), sampler, 2)["protocol"] == "inductive"


@pytest.mark.parametrize("norm", norms.MODES)
def test_an_adapted_task_is_inductive_in_every_mode(make_learner, make_episode, norm) -> None:
    learner = make_learner(backbone={"norm": norm}, inner={"steps": 1}, dtype=torch.float32)
    episode = make_episode(tasks=1, queries=4)
    task = learner.adapt(episode.support_images[0], episode.support_labels[0])
    together = task.predict_proba(episode.query_images[0])
    alone = torch.cat([task.predict_proba(image[None]) for image in episode.query_images[0]])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
