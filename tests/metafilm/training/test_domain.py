"""The cross entropy by which the task vector learns which domain a task is of."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from metafilm import MetaFiLM
from metafilm.config.sources import Source
from metafilm.training.outer_gradient import accumulate
from metafilm.training.outer_loop import OuterLoop

MIXTURE = {"name": ["omniglot", "strokes", "folder:mine"]}


@pytest.fixture
def episode(make_episode):
    return replace(make_episode(tasks=4), pool_ids=torch.tensor([0, 2, 1, 2]), class_ids=None)


@pytest.mark.parametrize("detach", [False, True])
def test_it_is_part_of_the_outer_loss(make_learner, episode, detach) -> None:
    sections = {"data": MIXTURE, "encoder": {"detach": detach}}
    learner = make_learner(outer={"domain": 0.3}, **sections).train()
    report = accumulate(learner, episode, learner.config)
    found = {name: value.grad for name, value in learner.outer_parameters().items()}
    learner.zero_grad()
    accumulate(learner, episode, make_learner(**sections).config)
    code = learner.adaptation(episode).code
    assert code.shape == (4, 6)
    loss = F.cross_entropy(learner.encoder.domain(code), episode.pool_ids)
    assert report["domain"] == pytest.approx(loss.item())
    (0.3 * loss).backward()
    for name, value in learner.outer_parameters().items():
        torch.testing.assert_close(value.grad, found[name], rtol=1e-9, atol=1e-12, msg=name)
    assert learner.encoder.domain.weight.grad.any()


def test_it_teaches_the_task_vector_and_is_not_needed_after(make_learner, episode, tmp_path) -> None:
    settings = {"domain": 1.0, "iterations": 40, "learning_rate": 0.03}
    learner = make_learner(data=MIXTURE, encoder={"width": 32}, outer=settings)
    loop = OuterLoop(learner, learner.config, Source(None, ()))  # type: ignore[arg-type]
    losses = [loop.step([episode])["domain"] for _ in range(40)]
    assert losses[0] > 0.8 > 0.2 > losses[-1], losses
    learner.float().save(tmp_path / "mine.safetensors")
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    plain = replace(episode, pool_ids=None)
    torch.testing.assert_close(again(plain).predictions[-1], learner.eval()(plain).predictions[-1])
    one = accumulate(learner.train(), plain, learner.config)
    assert "domain" not in one, "tasks of no mixture say nothing"


def test_without_it_there_is_no_classifier(make_learner) -> None:
    assert make_learner(data=MIXTURE).encoder.domain is None
    assert make_learner(data=MIXTURE, outer={"domain": 0.1}).encoder.domain.out_features == 3
