"""Episodes from a DataLoader are the sampler's own, whatever the workers, in rectangular batches."""

import pytest
import torch
from torch.utils.data import DataLoader

from episodes import to_dataloader
from episodes.datasets.sinusoids import SinusoidSampler
from episodes.episode import Episode
from episodes.errors import EpisodesError
from episodes.pool import ClassPool
from episodes.sampler import EpisodeSampler


@pytest.fixture
def pool() -> ClassPool:
    images = torch.arange(80, dtype=torch.uint8).view(80, 1, 1, 1).expand(80, 1, 4, 4).clone()
    return ClassPool.from_arrays(images, torch.arange(80) // 10)


def numbers(loader: DataLoader[Episode]) -> list[list[int]]:
    return [episode.index.tolist() for episode in loader]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # from 3.12 on
@pytest.mark.parametrize("workers", [0, 2])
def test_items_are_the_sampler_s_episodes(pool, workers) -> None:
    sampler = EpisodeSampler(pool, ways=3, shots=2, queries=4, seed=5)
    loader = to_dataloader(sampler, 5, meta_batch=2, first=7, num_workers=workers)
    assert len(loader) == 3
    found = list(loader)
    assert [episode.index.tolist() for episode in found] == [[7, 8], [9, 10], [11]]
    for episode in found:
        alone = sampler.batch(episode.index.tolist())
        assert torch.equal(episode.support_images, alone.support_images)
        assert torch.equal(episode.query_labels, alone.query_labels)
        assert episode.class_ids is not None and torch.equal(episode.class_ids, alone.class_ids)


def test_fresh_passes_go_on_others_repeat(pool) -> None:
    sampler = EpisodeSampler(pool, ways=3, shots=1, queries=1, seed=0)
    training = to_dataloader(sampler, 4, meta_batch=4)
    assert [numbers(training) for _ in range(3)] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]], [[8, 9, 10, 11]]]
    training.batch_sampler.set_epoch(1)
    assert numbers(training) == [[4, 5, 6, 7]]
    validation = to_dataloader(sampler, 4, meta_batch=4, fresh=False)
    assert numbers(validation) == numbers(validation) == [[0, 1, 2, 3]]


def test_shapes_that_differ_come_apart_and_none_is_lost(pool) -> None:
    sampler = EpisodeSampler(pool, ways=(2, 4), shots=1, queries=1, seed=1)
    loader = to_dataloader(sampler, 24, meta_batch=8, fresh=False)
    found = list(loader)
    assert len(found) == len(loader) > 3
    assert sorted(i for episode in found for i in episode.index.tolist()) == list(range(24))
    for episode in found:
        assert len(set(episode.index.div(8, rounding_mode="floor").tolist())) == 1  # of one meta-batch
        assert {sampler[i].ways for i in episode.index.tolist()} == {episode.ways}


def test_functions_too() -> None:
    loader = to_dataloader(SinusoidSampler(shots=5, queries=7, seed=0), 3, meta_batch=3)
    (episode,) = loader
    assert episode.support_images.shape == (3, 5, 1) and episode.ways == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"count": 0}, "count is 0"),
        ({"count": 1, "meta_batch": 0}, "meta_batch is 0"),
        ({"count": 1, "first": -1}, "first is -1"),
        ({"count": 1, "shuffle": True, "batch_size": 3}, "sets batch_size, shuffle itself"),
    ],
)
def test_bad_arguments_are_named(pool, arguments, complaint) -> None:
    with pytest.raises(EpisodesError, match=complaint):
        to_dataloader(EpisodeSampler(pool, ways=2, shots=1, queries=1), **arguments)
