"""What is no number is named, and no task is made of it."""

import math

import pytest
import torch

from metafilm.errors import NotFinite
from metafilm.learner.finite import not_finite


def test_what_is_named() -> None:
    tensors = {
        "good": torch.ones(3),
        "counts": torch.tensor([1, 2]),
        "bad": torch.tensor([[1.0, math.nan], [-math.inf, 0.0]]),
    }
    assert not_finite(tensors) == ["bad (2 of 4 values)"]
    assert not_finite({}) == []


@pytest.mark.parametrize("head", ["prototype", "linear"])
def test_no_task_of_weights_that_are_no_numbers(make_learner, make_episode, head) -> None:
    learner = make_learner(head={"name": head}, encoder={"enabled": False}, inner={"steps": 0})
    episode = make_episode(tasks=1)
    images, labels = episode.support_images[0].double(), episode.support_labels[0]
    learner.adapt(images, labels)
    with torch.no_grad():
        learner.backbone.blocks[0].conv.weight[0, 0, 0, 0] = math.nan
    with pytest.raises(NotFinite, match=r"weights are not finite: backbone\.blocks\.0\.conv\.weight"):
        learner.adapt(images, labels)


def test_no_task_of_deviations_that_are_no_numbers(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1}).train()
    episode = make_episode(tasks=1)
    with torch.no_grad():
        for size in learner.inner.step_sizes:
            size.fill_(1e300)
    with pytest.raises(NotFinite, match="adapting gave values that are not finite: "):
        learner.adapt(episode.support_images[0].double(), episode.support_labels[0])
    assert learner.training
