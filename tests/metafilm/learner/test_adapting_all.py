"""inner.adapts all: MAML on the backbone's weights, against MAML written out task by task."""

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from metafilm import MetafilmError, film, norms
from metafilm.training.outer_gradient import accumulate

STEPS = 2


def settings(**inner) -> dict:
    return {
        "encoder": {"enabled": False},
        "inner": {"steps": STEPS, "adapts": "all", "views": 0, **inner},
        "backbone": {"norm": "support"},
        "outer": {"penalty": 0.3},
    }


def written_out(learner, episode):
    """The outer loss of MAML: a mean over tasks, each with weights of its own."""
    deviations = film.parameters(learner.backbone)
    own = {name: value for name, value in learner.backbone.named_parameters() if name not in deviations}
    sizes = dict(zip(learner.inner.names, learner.inner.step_sizes, strict=True))
    losses = []
    for task in range(episode.tasks):
        one = episode.select(slice(task, task + 1))
        support, query = learner.prepare(one.support_images), learner.prepare(one.query_images)
        shots, weights = len(support), own

        def features(weights, x, shots=shots):
            with norms.layout(1, support=shots):
                return functional_call(learner.backbone, weights, (x,)).unsqueeze(0)

        for step in range(STEPS):
            seen = features(weights, support)
            loss = learner.head.inner_loss(seen, one.support_labels, one.ways, None).sum()
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {
                name: value - sizes[name][step] * gradient
                for (name, value), gradient in zip(weights.items(), gradients, strict=True)
            }
        found = features(weights, torch.cat((support, query)))
        state = learner.head.fit(found[:, :shots], one.support_labels, one.ways)
        losses.append(F.cross_entropy(learner.head.predict(state, found[:, shots:])[0], one.query_labels[0]))
    return torch.stack(losses).mean()


def test_it_is_maml(make_learner, make_episode) -> None:
    learner = make_learner(**settings()).train()
    episode = make_episode(tasks=3)
    names = {name for name, _ in learner.backbone.named_parameters()}
    assert set(learner.inner.names) == names - set(film.parameters(learner.backbone))
    expected = written_out(learner, episode)
    parameters = learner.outer_parameters()
    gradients = torch.autograd.grad(expected, list(parameters.values()))
    report = accumulate(learner, episode, learner.config)
    assert report["loss"] == pytest.approx(expected.item()) and report["penalty"] == 0.0
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        assert gradient.any(), name
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-11, msg=name)


def test_steps_change_each_tasks_predictions_and_tasks_are_apart(make_learner, make_episode) -> None:
    learner = make_learner(**settings(evaluation_steps=3)).eval()
    episode = make_episode(tasks=2)
    with torch.no_grad():
        found = learner(episode, all_stages=True)
        assert found.stages == ["identity", "step 1", "step 2", "step 3"]
        assert not any(torch.equal(found.predictions[0], later) for later in found.predictions[1:])
        alone = learner(episode.select(slice(1, 2)), all_stages=True)
    for whole, one in zip(found.predictions, alone.predictions, strict=True):
        torch.testing.assert_close(whole[1:], one)


def test_a_task_that_has_weights_of_its_own_is_not_kept(make_learner, make_episode, tmp_path) -> None:
    learner = make_learner(**settings())
    episode = make_episode()
    with pytest.raises(MetafilmError, match=r"inner\.adapts film"):
        learner.adapt(episode.support_images[0].float(), episode.support_labels[0])
    learner.save(tmp_path / "mine.safetensors")
    again = type(learner).from_pretrained(tmp_path / "mine.safetensors")
    assert again.inner.weights == learner.inner.weights


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"inner": {"adapts": "all", "steps": 1, "gate": True}}, "--inner.gate chooses deviations"),
        ({"inner": {"adapts": "all", "steps": 1}, "outer": {"film_noise": 1.0}}, "--outer.film-noise"),
        ({"inner": {"adapts": "all", "steps": 1}, "outer": {"compile": True}}, "--outer.compile traces"),
    ],
)
def test_what_does_not_fit_it(tiny_config, sections, said) -> None:
    with pytest.raises(MetafilmError, match=said):
        tiny_config(**sections)
