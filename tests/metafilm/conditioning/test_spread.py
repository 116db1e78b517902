"""What varies between classes against within them, against a reference class by class."""

import pytest
import torch

from metafilm import MetaFiLM, MetafilmError, TaskEncoder
from metafilm.conditioning import class_spread
from metafilm.heads import prototypes

LABELS = torch.tensor([[0, 0, 0, 1, 1, 2], [2, 1, 2, 1, 0, 2]])  # unequal shots
FEATURES = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def of(features: torch.Tensor, labels: torch.Tensor, ways: int = 3) -> torch.Tensor:
    return class_spread(features, labels, prototypes(features, labels, ways))


def test_against_a_reference_class_by_class() -> None:
    for features, labels, found in zip(FEATURES, LABELS, of(FEATURES, LABELS), strict=True):
        classes = [features[labels == c] for c in range(3)]
        between = torch.stack([c.mean(0) for c in classes]).var(0, correction=0)
        within = sum(((c - c.mean(0)) ** 2).sum(0) for c in classes) / (6 - 3)
        size = (between + within).mean()
        logs = [torch.log(torch.sqrt(value / size + 0.01)) for value in (between, within)]
        torch.testing.assert_close(found, torch.cat([value - value.mean() for value in logs]))


def test_it_tells_which_features_the_labels_follow() -> None:
    """The same images sorted by the first half of the features, then by the second."""
    generator = torch.Generator().manual_seed(1)
    first, second = (5 * torch.randn(3, 4, generator=generator) for _ in range(2))
    by_first, by_second = (c.flatten() for c in torch.meshgrid(*[torch.arange(3)] * 2, indexing="ij"))
    features = torch.cat((first[by_first], second[by_second]), -1)[None]
    features = features + 0.1 * torch.randn(features.shape, generator=generator)
    for labels, sign in ((by_first, 1), (by_second, -1)):
        between, within = of(features, labels[None])[0].chunk(2)
        assert (sign * (between[:4] - between[4:]) > 0.5).all()
        assert (sign * (within[:4] - within[4:]) < -0.5).all()


def test_size_does_not_matter_and_one_shot_says_nothing_of_within() -> None:
    torch.testing.assert_close(of(1e-3 * FEATURES, LABELS), of(FEATURES, LABELS))
    between, within = of(FEATURES[:, :3], torch.arange(3).expand(2, 3)).chunk(2, -1)
    assert between.abs().max() > 0.1 and not within.any()


def test_images_that_are_all_the_same_have_a_finite_gradient() -> None:
    features = torch.ones(2, 6, 5, requires_grad=True)
    found = of(features, LABELS)
    found.square().sum().backward()
    assert not found.any() and features.grad.isfinite().all()


@pytest.fixture
def learner(make_learner) -> MetaFiLM:
    return make_learner(encoder={"spread": True}).eval()


def test_neither_the_order_of_images_nor_that_of_classes_matters(learner, make_episode) -> None:
    episode = make_episode(shots=3)
    found = learner.adaptation(episode).films[-1]
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    other = type(episode)(
        **{
            **vars(episode),
            "support_images": episode.support_images[:, order],
            "support_labels": torch.tensor([2, 0, 1])[episode.support_labels[:, order]],
        }
    )
    for name, value in learner.adaptation(other).films[-1].items():
        torch.testing.assert_close(value, found[name])
    relabelled = torch.arange(9).remainder(3).expand(3, 9)  # other classes of the same images
    third = learner.encode(learner.features(learner.prepare(episode.support_images), {}, 3), relabelled, 3)
    assert any((value - found[name]).abs().max() > 1e-3 for name, value in third.items())


def test_it_makes_a_difference_and_is_saved(learner, make_episode, tmp_path) -> None:
    episode = make_episode(shots=3)
    before = learner.adaptation(episode).films[-1]
    learner.float().save(tmp_path / "mine.safetensors")
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    after = again.adaptation(episode).films[-1]
    for name, value in before.items():
        torch.testing.assert_close(after[name].double(), value, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        learner.encoder.spread.weight.zero_()
    without = learner.adaptation(episode).films[-1]
    assert any((without[name] - value).abs().max() > 1e-3 for name, value in before.items())


def test_an_encoder_that_reads_it_must_be_given_it() -> None:
    with pytest.raises(MetafilmError, match="reads the classes' spread too; give it"):
        TaskEncoder(4, {"a": 3}, spread=True)(torch.zeros(1, 3, 4))
