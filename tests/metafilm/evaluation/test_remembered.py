"""A network that does not adapt sees each image once, and says what it says without that."""

import pytest
import torch

from episodes import EpisodeSampler
from metafilm.evaluation import evaluate
from metafilm.evaluation.remembered import Remembered
from metafilm.evaluation.scoring import staged
from metafilm.learner.copies import looks_at_queries

PLAIN = {"encoder": {"enabled": False}, "inner": {"steps": 0}}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def plain(make_learner, **sections):
    return make_learner(**(PLAIN | sections)).eval().float()


def sampler(pool, **settings) -> EpisodeSampler:
    return EpisodeSampler(pool, **({"ways": 3, "shots": 2, "queries": 2, "seed": 1} | settings))


@pytest.fixture
def seen(monkeypatch):
    """How many images went through the network."""
    counted = []

    def watch(learner):
        features = learner.features

        def counting(x, *more, **options):
            counted.append(len(x))
            return features(x, *more, **options)

        monkeypatch.setattr(learner, "features", counting)
        return counted

    return watch


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"backbone": {"norm": "group"}},
        {"head": {"name": "cosine"}},
        {"head": {"name": "linear"}, "episodes": {"ways": 3}},
        {"head": {"name": "logistic", "transform": ["normalise"]}},
        {"evaluation": {"copies": 2, "copy_augment": "affine"}},
        {"evaluation": {"copies": 3, "query_copies": 1, "copy_augment": "affine"}},
        {"evaluation": {"copies": 1, "query_copies": 2, "copy_augment": "shift"}},
        {"head": {"name": "linear"}, "episodes": {"ways": 3}, "evaluation": {"query_copies": 2}},
    ],
    ids=str,
)
@pytest.mark.parametrize("room", [1 << 30, 1])
def test_predictions_are_those_of_each_task_by_itself(make_learner, pool, sections, room) -> None:
    learner = plain(make_learner, **sections)
    remembered = Remembered(learner, room)
    assert Remembered.possible(learner)
    with torch.no_grad():
        for numbers in ([0, 1], [2], [0]):
            episode = sampler(pool).batch(numbers)
            expected = [found[0] for _, _, found in staged(learner, episode)]
            torch.testing.assert_close(remembered.predictions(episode), torch.cat(expected), **CLOSE)
            found = [found[0] for _, _, found in staged(learner, episode, remembered=remembered)]
            torch.testing.assert_close(torch.cat(found), torch.cat(expected), **CLOSE)


@pytest.mark.parametrize("copies", [0, 2])
def test_each_image_is_seen_once(make_learner, pool, seen, copies) -> None:
    settings = {"copies": copies, "query_copies": copies, "copy_augment": "affine"}
    learner = plain(make_learner, evaluation=settings)
    counted, drawn = seen(learner), sampler(pool)
    with torch.no_grad():
        remembered = Remembered(learner)
        for number in range(20):
            remembered.predictions(drawn.batch([number]))
    looks = looks_at_queries(learner)
    assert 0 < sum(counted) <= len(pool.images) * looks < 20 * 3 * 4 * looks, "fewer than were drawn"


def test_without_room_all_are_seen_each_time(make_learner, pool, seen) -> None:
    learner = plain(make_learner)
    counted, episode = seen(learner), sampler(pool).batch([0])
    with torch.no_grad():
        remembered = Remembered(learner, room=0)
        for _ in range(3):
            remembered.predictions(episode)
    assert sum(counted) == 3 * (counted[0] + counted[1])


def test_evaluation_uses_it_where_nothing_adapts(make_learner, pool, seen) -> None:
    learner = plain(make_learner)
    counted = seen(learner)
    found = evaluate(learner, sampler(pool), 20)
    assert sum(counted) < 20 * 12
    plainly = torch.cat(
        [
            learner.head.measure(value[0], part.query_labels)
            for number in range(20)
            for part, _, value in staged(learner, sampler(pool).batch([number]))
        ]
    )
    assert found["accuracy"] == pytest.approx(float(plainly.double().mean()))


def test_it_is_for_nobody_else(make_learner, pool, seen) -> None:
    for sections in ({"backbone": {"norm": "support"}}, {"backbone": {"norm": "transductive"}}):
        assert not Remembered.possible(plain(make_learner, **sections))
    adapting = make_learner(inner={"steps": 1}).eval().float()
    counted = seen(adapting)
    evaluate(adapting, sampler(pool), 4)
    assert sum(counted) > 4 * 12
