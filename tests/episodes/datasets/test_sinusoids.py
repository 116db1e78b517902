"""Sinusoid episodes against plain arithmetic on the same random numbers."""

import math

import numpy as np
import pytest
import torch

from episodes.counter import Stream, uniforms
from episodes.datasets.sinusoids import SinusoidSampler
from episodes.episode import Episode
from episodes.errors import EpisodesError

GOLDEN_X = [-3.054328, -1.57169, -2.036498]
GOLDEN_Y = [0.2781, 0.478831, 0.20865]


def equal(one: Episode, other: Episode) -> bool:
    names = ("support_images", "support_labels", "query_images", "query_labels", "index")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_an_episode_is_amplitude_times_sine_of_x_minus_phase():
    sampler = SinusoidSampler(shots=3, queries=4, seed=5)
    episode = sampler.batch([9, 2])
    for row, number in enumerate((9, 2)):
        a, p = uniforms(5, [number], Stream.FUNCTION, (2,))[0]
        amplitude, phase = 0.1 + 4.9 * a, math.pi * p
        for points, x, y in (
            (
                uniforms(5, [number], Stream.SUPPORT_POINTS, (3,))[0],
                episode.support_images,
                episode.support_labels,
            ),
            (uniforms(5, [number], Stream.QUERY_POINTS, (4,))[0], episode.query_images, episode.query_labels),
        ):
            for k, u in enumerate(points):
                assert x[row, k, 0].item() == pytest.approx(10 * u - 5, abs=1e-6)
                assert y[row, k, 0].item() == pytest.approx(
                    amplitude * math.sin(10 * u - 5 - phase), abs=1e-5
                )


def test_shapes_and_types():
    episode = SinusoidSampler(shots=10, queries=100).batch(range(6))
    assert (episode.ways, episode.tasks, episode.shots, episode.queries) == (0, 6, 10, 100)
    assert episode.support_images.shape == episode.support_labels.shape == (6, 10, 1)
    assert episode.query_images.shape == episode.query_labels.shape == (6, 100, 1)
    assert {t.dtype for t in (episode.support_images, episode.support_labels)} == {torch.float32}
    assert episode.index.tolist() == list(range(6))


def test_an_episode_is_the_same_in_every_batch_order_and_prefetch():
    sampler = SinusoidSampler(shots=5, queries=7, seed=1, noise=0.3)
    alone = Episode.cat([sampler[i] for i in (4, 0, 3)])
    assert equal(sampler.batch([4, 0, 3]), alone)
    assert [part.tasks for part in sampler.batches([4, 0, 3], 2)] == [2, 1]
    assert equal(Episode.cat(list(sampler.batches([4, 0, 3], 2))), alone)
    ahead = list(sampler.prefetch([[4], [0, 3]], max_tasks=8))
    assert equal(Episode.cat([part for parts in ahead for part in parts]), alone)
    assert equal(next(iter(sampler)), sampler[0])
    assert not equal(sampler[0], SinusoidSampler(shots=5, queries=7, seed=2, noise=0.3)[0])


def test_more_points_only_add_points():
    few, many = SinusoidSampler(shots=5, queries=5)[3], SinusoidSampler(shots=9, queries=20)[3]
    assert torch.equal(few.support_images, many.support_images[:, :5])
    assert torch.equal(few.query_labels, many.query_labels[:, :5])


def test_draws_fill_their_ranges_evenly():
    sampler = SinusoidSampler(shots=10, queries=0)
    amplitude, phase = sampler.functions(range(4000))
    x = sampler.batch(range(4000)).support_images.numpy().ravel()
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, math.pi), (x, -5.0, 5.0)):
        assert (
            low <= values.min() < low + 0.01 * (high - low)
            and high - 0.01 * (high - low) < values.max() <= high
        )
        counts, _ = np.histogram(values, 8, (low, high))
        assert np.abs(counts / len(values) - 1 / 8).max() < 0.02


def test_noise_is_normal_and_on_the_support_alone():
    clean = SinusoidSampler(shots=20, queries=20).batch(range(2000))
    noisy = SinusoidSampler(shots=20, queries=20, noise=0.3).batch(range(2000))
    assert torch.equal(clean.query_labels, noisy.query_labels)
    assert torch.equal(clean.support_images, noisy.support_images)
    error = (noisy.support_labels - clean.support_labels).numpy().ravel()
    assert abs(error.mean()) < 0.01 and abs(error.std() - 0.3) < 0.01
    assert abs((np.abs(error) > 0.6).mean() - 0.0455) < 0.005  # two standard deviations


def test_the_stream_never_changes():
    episode = SinusoidSampler(seed=0).batch([0, 1, 1_000_000])
    np.testing.assert_allclose(episode.support_images[:, 0, 0], GOLDEN_X, atol=1e-5)
    np.testing.assert_allclose(episode.query_labels[:, 99, 0], GOLDEN_Y, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 0}, "shots=0: give a whole number, 1 or more"),
        ({"queries": -1}, "queries=-1: give a whole number, 0 or more"),
        ({"noise": -0.1}, "standard deviation"),
        ({"noise": math.nan}, "standard deviation"),
        ({"amplitude": (5, 1)}, "low <= high"),
        ({"phase": (0, math.inf)}, "phase"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(EpisodesError, match=message):
        SinusoidSampler(**settings)


def test_episode_numbers_are_checked():
    for indices in ([], [-1]):
        with pytest.raises(EpisodesError, match="from 0"):
            SinusoidSampler().batch(indices)
