"""Samplers as learn2learn tasksets and back; with the real learn2learn where it is installed."""

import random
import warnings

import pytest
import torch

from episodes.datasets.sinusoids import SinusoidSampler
from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.interop.tasksets import from_taskset, to_taskset
from episodes.pool import ClassPool
from episodes.sampler import EpisodeSampler

SHAPE = {"ways": 3, "shots": 2, "queries": 4}


@pytest.fixture
def pool() -> ClassPool:
    """Eight classes of ten images; every image is of one grey, its own."""
    greys = torch.arange(80, dtype=torch.uint8)
    return ClassPool.from_arrays(greys.view(80, 1, 1, 1).expand(80, 1, 4, 4).clone(), torch.arange(80) // 10)


def greys(images: torch.Tensor) -> list[int]:
    return (images[..., 0, 0, 0] * 255).round().int().flatten().tolist()


def test_a_task_is_an_episode_class_by_class_support_first(pool):
    sampler = EpisodeSampler(pool, **SHAPE, seed=2)
    taskset = to_taskset(sampler, num_tasks=5)
    data, labels = taskset[3]
    episode = sampler[3]
    expected = []
    for label in range(3):
        expected += greys(episode.support_images)[2 * label : 2 * label + 2]
        expected += greys(episode.query_images)[4 * label : 4 * label + 4]
    assert greys(data) == expected
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert (len(taskset), len(list(taskset))) == (5, 5)
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            taskset[outside]


def test_sample_follows_pythons_random_like_learn2learn(pool):
    taskset = to_taskset(EpisodeSampler(pool, **SHAPE), num_tasks=50)
    random.seed(7)
    drawn = [greys(taskset.sample()[0]) for _ in range(3)]
    random.seed(7)
    assert drawn == [greys(taskset[random.randrange(50)][0]) for _ in range(3)]


def test_there_and_back_is_the_same_episode(pool):
    sampler = EpisodeSampler(pool, **SHAPE, seed=1)
    back = from_taskset(to_taskset(sampler), 2, 4, 3)
    one, other = sampler.batch([4, 0, 9]), back.batch([4, 0, 9])
    for name in ("support_images", "support_labels", "query_images", "query_labels", "index"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (other.ways, other.shots, other.queries) == (3, 2, 4)
    parts = list(back.prefetch([[4], [0, 9]], max_tasks=1))
    assert [len(part) for part in parts] == [1, 2]
    assert torch.equal(
        Episode.cat([episode for part in parts for episode in part]).query_images, one.query_images
    )


def test_regression_tasks_are_rows_of_x_and_y():
    sampler = SinusoidSampler(shots=3, queries=2)
    x, y = to_taskset(sampler)[1]
    assert torch.equal(x, torch.cat([sampler[1].support_images[0], sampler[1].query_images[0]]))
    assert torch.equal(y, torch.cat([sampler[1].support_labels[0], sampler[1].query_labels[0]]))


def test_rows_and_labels_may_come_in_any_order_and_range():
    labels = torch.tensor([7, 3, 7, 3, 3, 7])
    data = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    episode = from_taskset([(data, labels)], shots=1, queries=2, ways=2)[0]
    assert greys(episode.support_images) == [1, 0] and episode.support_labels.tolist() == [[0, 1]]
    assert greys(episode.query_images) == [3, 4, 2, 5] and episode.query_labels.tolist() == [[0, 0, 1, 1]]


def test_what_does_not_fit_is_refused():
    labels = torch.tensor([0, 0, 1, 1])
    good = (torch.zeros(4, 1, 2, 2), labels)
    for task, settings, message in [
        (good, (2, 1, 2), r"2 images of class 0.*2 shots \+ 1 queries need 3"),
        (good, (1, 1, 3), "2 classes: expected"),
        ((torch.zeros(5, 1, 2, 2), labels), (1, 1, 2), "5 images, 4 labels"),
        ((torch.full((4, 1, 2, 2), 128.0), labels), (1, 1, 2), "scale=255"),
        ((torch.full((4, 1, 2, 2), -0.1), labels), (1, 1, 2), "Normalize"),
        ((torch.zeros(4, 2), labels), (1, 1, 2), r"\[n, C, H, W\]"),
    ]:
        with pytest.raises(EpisodesError, match=message):
            from_taskset([task], *settings)[0]
    assert from_taskset([(torch.full((4, 1, 2, 2), 128.0), labels)], 1, 1, 2, scale=255)[0].ways == 2
    for settings, message in [((0, 1, 2), "at least 2, 1 and 0"), ((1, 1, 1), "at least")]:
        with pytest.raises(EpisodesError, match=message):
            from_taskset([good], *settings)
    with pytest.raises(EpisodesError, match="scale"):
        from_taskset([good], 1, 1, 2, scale=0)
    with pytest.raises(EpisodesError, match="no \\[i\\]"):
        from_taskset(5, 1, 1, 2)  # type: ignore[arg-type]
    with pytest.raises(EpisodesError, match="num_tasks"):
        to_taskset(SinusoidSampler(), 0)


@pytest.fixture(scope="module")
def l2l():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gym's, and those of old libraries on a new Python
        return pytest.importorskip("learn2learn")


def test_a_real_learn2learn_taskset_gives_episodes(l2l, pool):
    # Labels are plain ints for learn2learn.
    dataset = [(image.float() / 255, row // 10) for row, image in enumerate(pool.images)]
    meta = l2l.data.MetaDataset(torch.utils.data.Subset(dataset, range(80)))  # type: ignore[arg-type]
    transforms = [
        l2l.data.transforms.NWays(meta, n=3),
        l2l.data.transforms.KShots(meta, k=6),
        l2l.data.transforms.LoadData(meta),
        l2l.data.transforms.RemapLabels(meta),
        l2l.data.transforms.ConsecutiveLabels(meta),
    ]
    taskset = l2l.data.Taskset(meta, transforms, num_tasks=20)
    sampler = from_taskset(taskset, 2, 4, 3)
    episode = sampler.batch([0, 5])
    assert torch.equal(episode.support_images, sampler.batch([0, 5]).support_images)
    for t in range(2):
        support, query = greys(episode.support_images[t]), greys(episode.query_images[t])
        assert len(set(support + query)) == 18  # no image twice
        classes = [{g // 10 for g in support[2 * c : 2 * c + 2] + query[4 * c : 4 * c + 4]} for c in range(3)]
        assert [len(c) for c in classes] == [1, 1, 1] and len(set().union(*classes)) == 3
    data, remapped = taskset[5]
    again, consecutive = to_taskset(sampler, 20)[5]
    assert torch.equal(data[remapped.argsort(stable=True)], again)
    assert torch.equal(remapped.sort().values, consecutive)


def test_learn2learns_maml_learns_from_our_taskset(l2l, pool):
    """The usual learn2learn script: every second row is support."""
    torch.manual_seed(0)
    taskset = to_taskset(EpisodeSampler(pool, ways=3, shots=2, queries=2), num_tasks=4)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    maml = l2l.algorithms.MAML(model, lr=1.0)
    data, labels = taskset.sample()
    support = torch.zeros(len(data), dtype=torch.bool)
    support[::2] = True
    assert labels[support].bincount().tolist() == labels[~support].bincount().tolist() == [2, 2, 2]
    learner = maml.clone()
    before = torch.nn.functional.cross_entropy(learner(data[support]), labels[support])
    learner.adapt(before)
    after = torch.nn.functional.cross_entropy(learner(data[support]), labels[support])
    after.backward()
    assert after < before
    assert model[1].weight.grad is not None and model[1].weight.grad.abs().sum() > 0
