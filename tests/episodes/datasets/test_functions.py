"""Mixtures of functions against plain arithmetic on the same random numbers."""

import math

import numpy as np
import pytest
import torch

from episodes import dataset
from episodes.counter import Stream, uniforms
from episodes.datasets.functions import KINDS, FunctionsSampler
from episodes.episode import Episode
from episodes.errors import EpisodesError

GOLDEN_X = [-3.054328, -1.57169, -2.036498]
GOLDEN_Y = [0.328552, -2.747029, 0.196721]


def written_out(kind: str, u: list[float], x: float) -> float:
    """MMAML's functions (generate_*_batch of its code) from four numbers in [0, 1)."""
    three = [6 * one - 3 for one in u[:3]]
    if kind == "sine":
        return (0.1 + 4.9 * u[0]) * math.sin(x - math.pi * u[1])
    if kind == "line":
        return three[0] * x + three[2]
    if kind == "quadratic":
        alpha = 0.02 + 0.13 * u[0]
        return (alpha if u[3] >= 0.5 else -alpha) * (x - three[1]) ** 2 + three[2]
    if kind == "tanh":
        return three[0] * math.tanh(x - three[1]) + three[2]
    return three[0] * abs(x - three[1]) + three[2]


@pytest.mark.parametrize("kinds", [1, 2, 3, 5])
def test_an_episode_is_its_function_and_noise(kinds):
    sampler = FunctionsSampler(kinds, shots=3, queries=4, seed=5)
    numbers = [9, 2, 0, 6, 13, 8]
    episode = sampler.batch(numbers)
    assert episode.pool_ids.tolist() == [number % kinds for number in numbers]
    for row, number in enumerate(numbers):
        u = uniforms(5, [number], Stream.FUNCTION, (4,))[0].tolist()
        pairs = uniforms(5, [number], Stream.NOISE, (7, 2))[0]
        for points, first, x, y in (
            (Stream.SUPPORT_POINTS, 0, episode.support_images, episode.support_labels),
            (Stream.QUERY_POINTS, 3, episode.query_images, episode.query_labels),
        ):
            draws = uniforms(5, [number], points, (x.shape[1],))[0]
            for k, draw in enumerate(draws):
                a, b = pairs[first + k]
                noise = 0.3 * math.sqrt(-2 * math.log1p(-a)) * math.cos(2 * math.pi * b)
                expected = written_out(KINDS[number % kinds], u, 10 * draw - 5) + noise
                assert x[row, k, 0].item() == pytest.approx(10 * draw - 5, abs=1e-6)
                assert y[row, k, 0].item() == pytest.approx(expected, abs=1e-5)


def test_shapes_types_and_the_registry():
    sampler = dataset("functions-3").sampler(shots=5, queries=6, seed=0)
    assert sampler.domains == ("sine", "line", "quadratic") and sampler.x_range == (-5.0, 5.0)
    episode = sampler.batch(range(7))
    assert (episode.ways, episode.tasks, episode.shots, episode.queries) == (0, 7, 5, 6)
    assert {t.dtype for t in (episode.support_images, episode.query_labels)} == {torch.float32}
    assert sampler.shapes([3, 1]) == [(0, 5), (0, 5)]
    for name, kinds in (("functions-2", 2), ("functions-5", 5)):
        entry = dataset(name)
        assert entry.functions and entry.sampler(shots=1, queries=1, seed=0).kinds == kinds
    with pytest.raises(EpisodesError, match="there is no pool"):
        dataset("functions-2").load("train")


def test_an_episode_is_the_same_in_every_batch_order_and_prefetch():
    sampler = FunctionsSampler(5, 5, 7, seed=1)
    alone = Episode.cat([sampler[i] for i in (4, 0, 3)])
    together = sampler.batch([4, 0, 3])
    ahead = Episode.cat([part for parts in sampler.prefetch([[4], [0, 3]], 8) for part in parts])
    for other in (together, ahead):
        for name in ("support_images", "support_labels", "query_images", "query_labels", "pool_ids"):
            assert torch.equal(getattr(alone, name), getattr(other, name)), name
    assert not torch.equal(sampler[0].support_labels, FunctionsSampler(5, 5, 7, seed=2)[0].support_labels)


def test_noise_of_both_parts_and_ranges():
    noisy, clean = (
        FunctionsSampler(2, 10, 10, seed=3, noise=noise).batch(range(3000)) for noise in (0.3, 0.0)
    )
    assert torch.equal(noisy.query_images, clean.query_images)
    errors = [(noisy.support_labels - clean.support_labels), (noisy.query_labels - clean.query_labels)]
    for error in errors:
        assert abs(float(error.mean())) < 0.01 and abs(float(error.std()) - 0.3) < 0.01
    assert abs(np.corrcoef(*(error.flatten() for error in errors))[0, 1]) < 0.02
    lines = clean.support_labels[1::2]
    assert lines.abs().max() < 3 * 5 + 3 and clean.support_labels[::2].abs().max() < 5
    curves = FunctionsSampler(3, 10, 0, noise=0.0).batch(range(2, 9000, 3)).support_labels
    assert curves.abs().max() < 0.15 * 64 + 3
    assert (
        0.45
        < float((FunctionsSampler(3, 1, 0).batch(range(2, 9000, 3)).support_labels > 0).float().mean())
        < 0.55
    )


def test_the_stream_never_changes():
    episode = FunctionsSampler(5, seed=0).batch([0, 1, 1_000_000])
    np.testing.assert_allclose(episode.support_images[:, 0, 0], GOLDEN_X, atol=1e-5)
    np.testing.assert_allclose(episode.query_labels[:, 4, 0], GOLDEN_Y, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": 0}, "choose 1 to 5"),
        ({"kinds": 6}, "choose 1 to 5 of sine, line"),
        ({"shots": 0}, "shots=0: give a whole number, 1 or more"),
        ({"queries": -1}, "queries=-1: give a whole number, 0 or more"),
        ({"noise": -0.1}, "standard deviation"),
        ({"noise": math.nan}, "standard deviation"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(EpisodesError, match=message):
        FunctionsSampler(**settings)


def test_episode_numbers_are_checked():
    for indices in ([], [-1]):
        with pytest.raises(EpisodesError, match="from 0"):
            FunctionsSampler().batch(indices)
