"""One learned δ for all tasks: the baseline of every claim of conditioning."""

import pytest
import torch

from metafilm import ConstantEncoder, MetaFiLM, MetafilmError, evaluate
from metafilm.training.outer_gradient import accumulate

CONSTANT = {"kind": "constant"}


@pytest.fixture
def learner(make_learner) -> MetaFiLM:
    made = make_learner(dtype=torch.float32, encoder=CONSTANT, inner={"steps": 1})
    for value in made.encoder.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return made.eval()


def test_it_is_a_parameter_per_site_and_zero_at_the_start() -> None:
    found = ConstantEncoder({"a": 3, "b.c": 5})(2)
    assert [(name, tuple(value.shape)) for name, value in found.items()] == [
        ("a.film.delta_gamma", (2, 3)),
        ("a.film.delta_beta", (2, 3)),
        ("b.c.film.delta_gamma", (2, 5)),
        ("b.c.film.delta_beta", (2, 5)),
    ]
    assert all(value.requires_grad and not value.any() for value in found.values())
    with pytest.raises(MetafilmError, match="needs at least one FiLM site"):
        ConstantEncoder({})


def test_every_task_gets_the_same_and_no_support_image_is_read_for_it(learner, make_episode) -> None:
    episode = make_episode(tasks=3)
    passes = []
    learner.backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    found = learner.adaptation(episode, steps=0)
    assert not passes and found.stages == ["identity", "encoder"] and found.features is None
    for value, own in zip(found.films[-1].values(), learner.encoder.deviations, strict=True):
        torch.testing.assert_close(value, own.expand(3, -1), rtol=0, atol=0)


def test_inner_steps_start_from_it_and_each_stage_is_scored(learner, make_episode, sampler) -> None:
    found = learner(make_episode(), all_stages=True)
    assert found.stages == ["identity", "encoder", "step 1"]
    name = next(iter(found.films[1]))
    assert (found.films[2][name][0] - found.films[2][name][1]).abs().max() > 1e-4, "steps are a task's own"
    assert evaluate(learner, sampler, 4, progress=False)["stages"] == found.stages


def test_the_penalty_and_the_queries_train_it_from_zero(make_learner, make_episode) -> None:
    learner = make_learner(encoder=CONSTANT, fresh=True).train()
    report = accumulate(learner, make_episode(), learner.config)
    assert report["penalty"] == 0
    assert all(value.grad.any() for value in learner.encoder.parameters())
    torch.nn.init.constant_(next(learner.encoder.parameters()), 2.0)
    assert accumulate(learner, make_episode(), learner.config)["penalty"] == pytest.approx(4 / 8)


def test_what_it_gave_does_not_follow_it() -> None:
    made = ConstantEncoder({"a": 3})
    with torch.no_grad():
        found = made(2)
        next(made.parameters()).fill_(1.0)
    assert not found["a.film.delta_gamma"].any()


def test_a_task_exports_it(learner, make_episode) -> None:
    episode = make_episode(tasks=1)
    task = learner.adapt(episode.support_images[0], episode.support_labels[0], steps=0)
    images = episode.query_images[0]
    expected = learner(episode, steps=0).predictions[-1][0].detach().softmax(-1)
    torch.testing.assert_close(task.predict_proba(images), expected)
    torch.testing.assert_close(task.to_module()(images).softmax(-1), expected)


@pytest.mark.parametrize("config", [True, False])
def test_it_is_saved_with_its_learner(learner, make_episode, tmp_path, config) -> None:
    if not config:
        learner.config = None
    learner.save(tmp_path / "mine.safetensors")
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    assert isinstance(again.encoder, ConstantEncoder)
    found, expected = again(make_episode()).predictions[-1], learner(make_episode()).predictions[-1]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
