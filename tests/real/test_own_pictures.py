"""Real drawings as files of dark ink on white paper, and real photographs, given to weights of Omniglot."""

import warnings

import numpy as np
import pytest
import torch

import episodes
from episodes import EpisodeSampler
from episodes.datasets.omniglot import find_omniglot, list_characters
from metafilm import MetaFiLM

TASKS = 15


@pytest.mark.slow
@pytest.mark.real("omniglot")
def test_white_paper_scores_as_black_does() -> None:
    """5-way 5-shot tasks of validation classes: the files as they are against the pool's drawings."""
    learner = MetaFiLM.from_pretrained("omniglot-conv4")
    pool = episodes.load("omniglot", "val")
    place = find_omniglot(episodes.data_root())
    assert place is not None
    files = {name: paths for name, _, paths in list_characters(place)}
    generator = np.random.default_rng(0)
    right = {"black": 0, "white": 0, "left": 0}
    for number in range(TASKS):
        classes = generator.choice(pool.num_classes, 5, replace=False)
        order = [generator.permutation(20) for _ in classes]
        drawn = [files[pool.class_names[number]] for number in classes]
        white = [
            [paths[i] for paths, some in zip(drawn, order, strict=True) for i in some[part]]
            for part in (slice(0, 5), slice(5, 15))
        ]
        starts = [int(pool.counts[:c].sum()) for c in classes]
        black = [
            torch.cat([pool.images[s + some[part]] for s, some in zip(starts, order, strict=True)])
            for part in (slice(0, 5), slice(5, 15))
        ]
        labels, wanted = np.repeat(range(5), 5).tolist(), np.repeat(range(5), 10)
        task = learner.adapt(black[0], labels)
        right["black"] += (np.array(task.predict(black[1])) == wanted).sum()
        for kind in ("white", "left")[: 1 + (number < 5)]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                support, recipe = learner.preprocess(white[0], invert="auto" if kind == "white" else "no")
            assert recipe.inverted == (kind == "white")
            task = learner.adapt(support, labels, checked=True)
            queries, _ = learner.preprocess(white[1], recipe=recipe)
            right[kind] += (np.array(task.predict(queries)) == wanted).sum()
    tasks = {"black": TASKS, "white": TASKS, "left": 5}
    black, white, left = (100 * right[kind] / (50 * count) for kind, count in tasks.items())
    assert black > 99 and abs(black - white) < 1
    assert left < black - 10  # what it would cost


@pytest.mark.real("miniimagenet")
def test_photographs_are_left_alone() -> None:
    learner = MetaFiLM.from_pretrained("omniglot-conv4")
    for shots in (1, 5):
        sampler = EpisodeSampler(episodes.load("miniimagenet", "val"), 5, shots, 1, 0)
        for number in range(40):
            assert not learner.preprocess(sampler[number].support_images[0])[1].inverted
