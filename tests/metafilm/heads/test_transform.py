"""What is done to features before a head compares them, against a loop over numbers."""

import math

import pytest
import torch

from episodes import Episode, EpisodeSampler
from metafilm import MetaFiLM, MetafilmError, TaskBank, film, heads
from metafilm.backbones import Conv4
from metafilm.errors import ConfigError
from metafilm.evaluation import centre, judge
from metafilm.heads import CosineHead, FeatureTransform, PrototypeHead
from metafilm.learner.build import load_learner

ORDERS = [
    ("centre", "normalise"),
    ("power", "normalise"),
    ("power", "centre", "normalise"),
    ("centre", "power"),
    ("normalise",),
]
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def looped(vector: list[float], steps, mean: list[float]) -> list[float]:
    for step in steps:
        if step == "centre":
            vector = [x - m for x, m in zip(vector, mean, strict=True)]
        elif step == "power":
            roots = [math.sqrt(abs(x) + 1e-6) - 1e-3 for x in vector]
            vector = [math.copysign(root, x) for root, x in zip(roots, vector, strict=True)]
        else:
            length = math.sqrt(sum(x * x for x in vector))
            vector = [x / length for x in vector]
    return vector


def through_loop(features: torch.Tensor, transform: FeatureTransform) -> torch.Tensor:
    mean = transform.mean.tolist() if transform.centres else []
    rows = [looped(row, transform.steps, mean) for row in features.flatten(0, -2).tolist()]
    return torch.tensor(rows, dtype=features.dtype).view(features.shape)


@pytest.mark.parametrize("steps", ORDERS)
def test_each_step(steps) -> None:
    transform = FeatureTransform(steps, 5).double()
    if transform.centres:
        transform.mean.copy_(torch.randn(5))
    features = torch.randn(2, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(transform(features), through_loop(features, transform), **EXACT)
    nothing = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    transform(nothing).sum().backward()
    assert nothing.grad is not None and nothing.grad.isfinite().all()


@pytest.mark.parametrize("steps", ORDERS)
@pytest.mark.parametrize("head", ["prototype", "cosine", "ridge"])
def test_a_learner_predicts_by_them_in_evaluation_alone(make_learner, make_episode, steps, head) -> None:
    settings = {"inner": {"steps": 2, "views": 2}, "backbone": {"width": 6}}
    learner = make_learner(head={"name": head, "transform": list(steps)}, **settings)
    twin = make_learner(head={"name": head}, **settings)
    twin.load_state_dict({k: v for k, v in learner.state_dict().items() if "transform" not in k})
    episode, transform = make_episode(), learner.head.transform
    if transform.centres:
        transform.mean.copy_(0.3 * torch.rand(learner.feature_size))
    for one, other in zip(
        learner.train()(episode, all_stages=True).predictions,
        twin.train()(episode, all_stages=True).predictions,
        strict=True,
    ):
        assert torch.equal(one, other)
    learner.eval(), twin.eval()
    outcome = learner(episode, all_stages=True)
    # the twin's head is given what the loop makes of each feature, inner steps and all
    seen = twin.head.seen
    twin.head.seen = lambda features: transform(seen(features))  # for gradients; the loop checks the values
    for one, other in zip(outcome.predictions, twin(episode, all_stages=True).predictions, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    films, tasks = outcome.films[-1], episode.tasks
    both = torch.cat((episode.support_images, episode.query_images), 1)
    support = episode.support_labels.shape[1]
    features = through_loop(learner.features(learner.prepare(both), films, tasks).detach(), transform)
    state = twin.head.fit(features[:, :support], episode.support_labels, episode.ways)
    expected = twin.head.predict(state, features[:, support:])
    torch.testing.assert_close(outcome.predictions[-1], expected, **EXACT)


def test_the_mean_is_of_the_training_classes(make_learner, pool) -> None:
    """Of the first episodes' images, after the steps before it; twice measured it is the same."""
    learner = make_learner(head={"transform": ["power", "centre", "normalise"]})
    sampler = EpisodeSampler(pool, ways=3, shots=2, queries=2, seed=1)
    centre(learner, sampler, images=100)
    total, count = 0.0, 0
    learner.eval()
    for i in range(16):  # rounds of 8 tasks of 12 images, until there are 100
        episode: Episode = sampler[i]
        images = torch.cat((episode.support_images, episode.query_images), 1)
        features = learner.features(learner.prepare(images.double()), {}, 1)[0].detach()
        total = total + through_loop(features, FeatureTransform(("power",), 4)).sum(0)
        count += len(features)
    torch.testing.assert_close(learner.head.transform.mean, total / count, rtol=1e-6, atol=1e-9)
    before = learner.head.transform.mean.clone()
    centre(learner, sampler, images=100)
    assert torch.equal(before, learner.head.transform.mean) and not learner.training
    plain = make_learner()
    centre(plain, None)  # type: ignore[arg-type]  # there is nothing to measure


@pytest.mark.parametrize("head", ["prototype", "cosine", "ridge"])
@pytest.mark.parametrize("by", ["settings", "parts"])
def test_tasks_banks_and_files_say_the_same(make_learner, head, by, tmp_path) -> None:
    steps = ["centre", "power", "normalise"]
    if by == "settings":
        learner = make_learner(dtype=torch.float32, head={"name": head, "transform": steps})
    else:
        made = heads.build(head, 4, 3, transform=steps)
        learner = MetaFiLM(film.insert(Conv4((1, 16, 16), 4)), made, image_shape=(1, 16, 16))
    learner.head.transform.mean.copy_(0.2 * torch.rand(4))
    learner.eval()
    images = torch.rand(9, 1, 16, 16)
    task = learner.adapt(images[:6], [0, 1, 2] * 2)
    features = learner.features(
        learner.prepare(images.unsqueeze(0)),
        task.film and {name: value.unsqueeze(0) for name, value in task.film.items()},
        1,
    )
    seen = learner.head.transform(features.detach())
    state = learner.head.fit(seen[:, :6], torch.tensor([[0, 1, 2] * 2]), 3)
    expected = learner.head.predict(state, seen[:, 6:])[0]
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(task.logits(images[6:]), expected, **near)
    bank = TaskBank(learner)
    number = bank.add(task)
    torch.testing.assert_close(bank.logits(images[6:], [number] * 3), expected, **near)
    learner.save(tmp_path / "model.safetensors")
    again = load_learner(tmp_path / "model.safetensors")
    assert again.fingerprint() == learner.fingerprint()
    torch.testing.assert_close(
        again.adapt(images[:6], [0, 1, 2] * 2).logits(images[6:]), task.logits(images[6:]), **near
    )
    familiar = learner.head.familiarity(state, seen[:, 6:], torch.full((1, 3), 2.0))[0]
    torch.testing.assert_close(task.familiarity(images[6:]), familiar, **near)


def test_judgements_are_by_them_too(make_learner, pool) -> None:
    learner = make_learner(dtype=torch.float32, head={"name": "cosine", "transform": ["normalise"]})
    plain = make_learner(dtype=torch.float32, head={"name": "cosine"})
    plain.load_state_dict(learner.state_dict())
    sampler = EpisodeSampler(pool, ways=3, shots=2, queries=2, seed=1)
    # to a cosine, lengths say nothing for single shots' images; means of unit vectors differ
    found, other = judge(learner, sampler, 4, ways=2), judge(plain, sampler, 4, ways=2)
    assert not torch.equal(torch.stack(found.logits), torch.stack(other.logits))


def test_errors(tiny_config) -> None:
    with pytest.raises(MetafilmError, match="unknown feature transform 'whiten'; expected some of centre"):
        FeatureTransform(("whiten",), 3)
    with pytest.raises(MetafilmError, match="takes each of its steps once"):
        FeatureTransform(("power", "power"), 3)
    with pytest.raises(ConfigError, match=r"--head\.transform powr is unknown; did you mean power\?"):
        tiny_config(head={"transform": ["powr"]})
    with pytest.raises(ConfigError, match=r"--head\.transform must name each step once, is power power"):
        tiny_config(head={"transform": ["power", "power"]})
    with pytest.raises(ConfigError, match=r"--head\.transform is for heads fitted to the support, not for l"):
        tiny_config(head={"name": "linear", "transform": ["power"]})
    assert isinstance(heads.build("cosine", 4, 3), CosineHead)
    assert PrototypeHead(1.0).transform is None
