"""Whose support the task encoder reads instead of the task's own."""

from dataclasses import replace

import pytest
import torch

from episodes import ClassPool, Episode, EpisodeSampler
from episodes.datasets.sinusoids import SinusoidSampler
from metafilm import MetafilmError
from metafilm.evaluation import evaluate, other_support
from metafilm.evaluation.other_support import PATIENCE, WHOLE, OtherDomain, OtherSupport


def classes(pool: ClassPool, images: torch.Tensor) -> list[int]:
    """The class of each image ``[n, C, H, W]``, found by its pixels."""
    known = pool.images.float().flatten(1) / 255
    labels = torch.repeat_interleave(torch.arange(pool.num_classes), pool.counts)
    return [int(labels[(known - image.flatten()).abs().sum(1).argmin()]) for image in images]


@pytest.mark.parametrize("within_group", [False, True])
@pytest.mark.parametrize("ways", [2, 3])
def test_no_class_is_shared_where_there_are_enough(pool, ways, within_group) -> None:
    labels = torch.arange(7).repeat_interleave(8)
    grouped = ClassPool.from_arrays(pool.images, labels, groups=["a"] * 4 + ["b"] * 3)
    sampler = EpisodeSampler(grouped, ways, 2, 2, 3, within_group=within_group)
    whole = 0
    for number in range(30):
        task = sampler[number]
        own = set(task.class_ids[0].tolist())
        other, shared = OtherSupport(sampler).of(task)
        assert shared == [0] and (other.ways, other.shots, other.tasks) == (ways, 2, 1)
        read = classes(pool, other.support_images[0])
        assert read[::2] == read[1::2] and len(set(read)) == ways, "two shots of each of so many classes"
        assert not own.intersection(read)
        assert other.support_labels.tolist() == [[label for label in range(ways) for _ in range(2)]]
        following = [sampler[number + step] for step in range(1, WHOLE + 1)]
        disjoint = [one for one in following if not own.intersection(one.class_ids[0].tolist())]
        if disjoint:
            whole += 1
            assert torch.equal(other.support_images, disjoint[0].support_images)
    assert 0 < whole <= 30


def test_too_few_classes_are_said(pool) -> None:
    class Counting(EpisodeSampler):
        asked = 0

        def batch(self, indices) -> Episode:
            self.asked += 1
            return super().batch(indices)

    sampler = Counting(pool.subset([0, 1, 2, 3]), 3, 1, 1, 0)
    others = OtherSupport(sampler)
    tasks = sampler.batch(range(10))
    sampler.asked = 0
    other, shared = others.of(tasks)
    assert shared == [2] * 10, "three of four classes and three of four share two at least"
    assert other.tasks == 10 and other.support_images.shape == tasks.support_images.shape
    assert PATIENCE + 9 * WHOLE <= sampler.asked < PATIENCE + 9 * 2 * WHOLE, "once is enough to find out"


def test_shuffled_stays_in_the_domain(pool) -> None:
    """Also where its classes are too few, and the other pool's would be enough."""
    sampler = EpisodeSampler((pool.subset([0, 1, 2]), pool.subset([3, 4, 5, 6])), 2, 1, 1, 0)
    others = OtherSupport(sampler)
    for number in range(20):
        task = sampler[number]
        first = int(task.pool_ids[0]) == 0
        other, (shared,) = others.of(task)
        read = set(classes(pool, other.support_images[0]))
        assert read <= ({0, 1, 2} if first else {3, 4, 5, 6}) and shared == (1 if first else 0)


def test_another_domain_is_another_pool(pool) -> None:
    sampler = EpisodeSampler((pool.subset([0, 1, 2]), pool.subset([3, 4, 5])), 3, 1, 1, 0)
    tasks = sampler.batch(range(10))
    other, shared = OtherDomain(sampler).of(tasks)
    assert shared == [0] * 10 and other.query_labels.shape == (10, 0)
    for number, origin in enumerate(tasks.pool_ids.tolist()):
        following = (sampler[number + step] for step in range(1, 100))
        expected = next(one for one in following if int(one.pool_ids[0]) != origin)
        assert torch.equal(other.support_images[number], expected.support_images[0])


def test_other_data_sets_are_read_in_turn(pool) -> None:
    tasks = EpisodeSampler(pool.subset([0, 1, 2]), 2, 1, 1, 0).batch(range(4))
    samplers = [EpisodeSampler(pool.subset([3, 4, 5, 6]), 2, 1, 1, seed) for seed in (5, 6)]
    other, _ = OtherDomain(samplers[0], samplers).of(tasks)
    for number in range(4):
        assert torch.equal(other.support_images[number], samplers[number % 2][number].support_images[0])


def test_no_other_domain_and_one_that_is_never_drawn(pool, sampler, monkeypatch) -> None:
    with pytest.raises(MetafilmError, match=r"of one data set alone.*--dataset"):
        OtherDomain(sampler).of(sampler[0])
    two = (pool.subset([0, 1, 2]), pool.subset([3, 4, 5]))
    monkeypatch.setattr(other_support, "FAR", 20)
    never = EpisodeSampler(two, 3, 1, 1, 0, weights=(1, 0))
    with pytest.raises(MetafilmError, match="none of the 20 episodes after episode 3 is of another data set"):
        OtherDomain(never).of(never[3])
    with pytest.raises(MetafilmError, match="none of the 20 episodes after episode 3 is of its data set"):
        OtherSupport(never).of(replace(never[3], pool_ids=torch.tensor([1])))


def test_a_support_of_its_own_for_each_task(pool) -> None:
    sampler = EpisodeSampler(pool, 3, 2, 2, 1)
    together, shared = OtherSupport(sampler).of(sampler.batch(range(5)))
    assert shared == [0] * 5
    for number in range(5):
        alone, _ = OtherSupport(sampler).of(sampler[number])
        assert torch.equal(together.support_images[number], alone.support_images[0])


def test_functions_have_the_next_one_s() -> None:
    sampler = SinusoidSampler(shots=5, queries=4, seed=0)
    other, shared = OtherSupport(sampler).of(sampler.batch([3, 7]))
    assert shared == [0, 0] and torch.equal(other.support_labels, sampler.batch([4, 8]).support_labels)


def test_several_shapes(pool) -> None:
    sampler = EpisodeSampler(pool, (2, 3), 1, 1, 0)
    with pytest.raises(MetafilmError, match="another support needs tasks of one shape"):
        OtherSupport(sampler).of(Episode.cat([sampler[i] for i in range(40) if sampler[i].ways == 2]))


def test_the_mean_over_tasks_in_the_place_of_each_ones_own(make_learner, sampler) -> None:
    learner = make_learner(dtype=torch.float32)
    encoder = learner.encoder
    found = evaluate(learner, sampler, 4, encoder_support="mean", progress=False)
    assert learner.encoder is encoder
    assert found["accuracy_own_support"] == evaluate(learner, sampler, 4, progress=False)["accuracy"]
    assert found["encoder_support"] == "mean" and found["encoder_shared_classes"] == 0
    with torch.no_grad():
        given = [learner.eval().encoded(sampler.batch([number]))[0] for number in range(4, 4 + 64)]
        mean = {name: torch.stack([films[name][0] for films in given]).mean(0) for name in given[0]}
        right = []
        for number in range(4):
            episode = sampler.batch([number])
            films = {name: value.unsqueeze(0) for name, value in mean.items()}
            logits, _ = next(learner.predictions(episode, [films]))
            right.append((logits.argmax(-1) == episode.query_labels).double().mean().item())
    assert found["accuracy"] == pytest.approx(100 * sum(right) / 4)
