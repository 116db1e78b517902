"""Prefetching: order, depth, errors, and a thread that ends with its consumer."""

import threading
import time

import pytest
import torch

from episodes import ClassPool, EpisodeSampler, EpisodesError
from episodes.sampling.prefetch import prefetch

POOL = ClassPool.from_arrays(
    torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1), [i // 10 for i in range(60)]
)
SAMPLER = EpisodeSampler(POOL, (2, 3), 1, 2)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "episodes-prefetch"]


def test_gives_what_batches_gives_in_order():
    entries = [range(4 * k, 4 * k + 4) for k in range(9)]
    for indices, found in zip(entries, SAMPLER.prefetch(entries, 2), strict=True):
        expected = list(SAMPLER.batches(indices, 2))
        assert [e.index.tolist() for e in found] == [e.index.tolist() for e in expected]
        assert all(torch.equal(a.query_images, b.query_images) for a, b in zip(found, expected, strict=True))
    assert not threads()


@pytest.mark.parametrize("how", ["break", "error", "forgotten"])
def test_the_thread_ends_when_the_consumer_stops(how):
    def endless():
        while True:
            yield range(3)

    episodes = SAMPLER.prefetch(endless(), depth=2)
    next(episodes)
    assert len(threads()) == 1
    if how == "break":
        episodes.close()
    elif how == "error":
        with pytest.raises(KeyError):
            episodes.throw(KeyError("stop"))
    del episodes
    assert not threads()


def test_an_error_arrives_in_its_turn():
    episodes = SAMPLER.prefetch([range(2), [-1], range(2)])
    assert next(episodes)[0].tasks >= 1
    with pytest.raises(EpisodesError, match="integers from 0"):
        next(episodes)
    assert not threads()


def test_never_runs_further_ahead_than_depth():
    asked = []

    def entries():
        for k in range(50):
            asked.append(k)
            yield [k]

    episodes = SAMPLER.prefetch(entries(), depth=2)
    next(episodes)
    time.sleep(0.3)
    assert len(asked) <= 1 + 2 + 1  # taken, ready, and one in the thread's hands
    episodes.close()


def test_refusals():
    with pytest.raises(EpisodesError, match="depth is 0"):
        next(prefetch(SAMPLER, [range(2)], depth=0))
    with pytest.raises(EpisodesError, match="max_tasks is 0"):
        next(SAMPLER.batches(range(2), 0))
