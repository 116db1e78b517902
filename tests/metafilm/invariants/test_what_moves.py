"""Only FiLM moves in the inner loop; everything else, and nothing of FiLM, moves in the outer loop."""

import copy

import pytest
import torch

from metafilm import evaluate, film, norms
from metafilm.config.sources import Source
from metafilm.training.outer_gradient import accumulate
from metafilm.training.outer_loop import OuterLoop

FILM = {f"blocks.{i}.norm.film.delta_{kind}" for i in range(4) for kind in ("gamma", "beta")}
BACKBONE = {
    f"backbone.blocks.{i}.{name}" for i in range(4) for name in ("conv.weight", "norm.weight", "norm.bias")
}
ENCODER = {
    f"encoder.{name}"
    for name in (
        "norm.weight",
        "norm.bias",
        "embed.0.weight",
        "embed.0.bias",
        "join.weight",
        "join.bias",
        "decoder.linear.weight",
        "decoder.linear.bias",
        "multiplier",
    )
}
INNER = {f"inner.step_sizes.{i}" for i in range(8)}
AUXILIARY = {"auxiliary.weight", "auxiliary.bias"}
OUTER = BACKBONE | ENCODER | INNER | AUXILIARY | {"head.log_scale"}


@pytest.fixture
def learner(make_learner):
    return make_learner(train_classes=7, inner={"steps": 2}, outer={"auxiliary": 0.5, "clip_norm": 0.0})


def test_key_sets(learner) -> None:
    assert set(film.parameters(learner.backbone)) == FILM
    assert set(learner.outer_parameters()) == OUTER
    assert {name for name, _ in learner.named_parameters()} == OUTER | {f"backbone.{name}" for name in FILM}
    assert set(film.zeros(learner.backbone, 2)) == FILM


def test_the_inner_loop_moves_deviations_and_nothing_else(learner, make_episode, sampler) -> None:
    for training in (True, False):
        learner.train(training)
        before = copy.deepcopy(learner.state_dict())
        outcome = learner(make_episode(), all_stages=True)
        assert outcome.stages == ["identity", "encoder", "step 1", "step 2"]
        for first, second in zip(outcome.films[1:], outcome.films[2:], strict=False):
            assert set(first) == set(second) == FILM
            assert all(not torch.equal(first[name], second[name]) for name in FILM)
        assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    episode = make_episode(tasks=1)
    task = learner.adapt(episode.support_images[0], episode.support_labels[0])
    evaluate(learner, sampler, 2)
    assert set(task.film) == FILM
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_the_outer_gradient_reaches_everything_else(learner, make_episode) -> None:
    accumulate(learner.train(), make_episode(), learner.config)
    reached = {
        name for name, value in learner.named_parameters() if value.grad is not None and value.grad.any()
    }
    assert reached == OUTER


def test_one_outer_step_moves_everything_else(learner, make_episode) -> None:
    before = copy.deepcopy(learner.state_dict())
    loop = OuterLoop(learner, learner.config, Source(None, ()))  # type: ignore[arg-type]
    loop.step([make_episode()])
    moved = {
        name
        for name, _ in learner.named_parameters()
        if not torch.equal(before[name], learner.state_dict()[name])
    }
    assert moved == OUTER
    buffers = {
        name
        for name, _ in learner.named_buffers()
        if name in before and not torch.equal(before[name], learner.state_dict()[name])
    }
    averages = ("running_mean", "running_var", "num_batches_tracked")
    assert buffers == {f"backbone.blocks.{i}.norm.{name}" for i in range(4) for name in averages}


def test_frozen_parts_cost_no_gradient(make_learner, make_episode) -> None:
    """Neither their own, nor a graph of the pass that the encoder reads."""
    learner = make_learner(outer={"freeze": ["backbone", "head"]}, encoder={"spread": True}).train()
    episode = make_episode()
    assert not learner.adaptation(episode).features.requires_grad
    accumulate(learner, episode, learner.config)
    reached = {name for name, value in learner.named_parameters() if value.grad is not None}
    assert reached == ENCODER | {"encoder.spread.weight", "encoder.spread.bias"}


def test_running_averages_follow_the_predicting_pass_alone(learner, make_episode) -> None:
    """Not the encoder's pass at δ = 0 nor those of the inner loop, whose images are augmented."""
    learner.train()(make_episode(tasks=3))
    recorded = {m.recorded_tasks.item() for m in learner.backbone.modules() if isinstance(m, norms.Norm)}
    assert recorded == {3}


def test_step_sizes_that_are_not_learned_stay(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 2, "learn_step_size": False})
    assert not INNER & set(learner.outer_parameters())
    before = copy.deepcopy(learner.state_dict())
    OuterLoop(learner, learner.config, Source(None, ())).step([make_episode()])  # type: ignore[arg-type]
    assert all(torch.equal(before[name], learner.state_dict()[name]) for name in INNER)


def test_a_detached_encoder_gives_the_backbone_nothing(make_learner, make_episode) -> None:
    """Of the deviations' gradient, that is; the encoder keeps its own."""
    for detach in (False, True):
        learner = make_learner(encoder={"detach": detach})
        deviations = learner(make_episode()).films[-1]
        torch.stack([value.square().sum() for value in deviations.values()]).sum().backward()
        reached = {
            name for name, value in learner.named_parameters() if value.grad is not None and value.grad.any()
        }
        assert reached == (ENCODER if detach else BACKBONE | ENCODER)
