"""The real Omniglot by character, alphabet and drawer; and that a drawer's number is one hand."""

import numpy as np
import pytest
import torch

import episodes
from episodes import CriterionSampler
from episodes.datasets.omniglot import find_omniglot, list_characters
from episodes.datasets.omniglot_criteria import CRITERIA

pytestmark = pytest.mark.real("omniglot")


@pytest.fixture(scope="module")
def pools():
    return {split: episodes.load("omniglot-criteria", split) for split in ("train", "val", "test")}


def test_splits_share_no_value(pools):
    sizes = {split: (pool.num_classes, len(pool.group_names)) for split, pool in pools.items()}
    assert sizes == {"train": (792, 25), "val": (172, 5), "test": (659, 20)}
    for a, name in enumerate(CRITERIA):
        values = [pool.attributes[a].value_names for pool in pools.values()]
        assert {pool.attributes[a].name for pool in pools.values()} == {name}
        assert len(set().union(*values)) == sum(map(len, values))


def test_validation_alphabets_are_those_of_the_vinyals_split(pools):
    assert set(pools["val"].group_names) == set(episodes.load("omniglot", "val").group_names)


def test_files_are_numbered_by_drawer():
    for _, _, files in list_characters(find_omniglot(episodes.data_root())):
        assert [path.stem[-3:] for path in files] == [f"_{drawer:02d}" for drawer in range(1, 21)]


def features(pool):
    """[characters, 20, 5]: ink, height, width and place of each drawing, against its character's mean."""
    found = []
    for image in pool.images[:, 0].numpy():
        y, x = np.nonzero(image > 76)
        found.append([image.sum() / 255, np.ptp(y), np.ptp(x), y.mean(), x.mean()])
    table = np.array(found).reshape(pool.num_classes, 20, 5)
    return table - table.mean(1, keepdims=True)


def explained(table):
    """Share of the variance that a drawer's mean over characters explains, per feature."""
    return (table.mean(0) ** 2).sum(0) * len(table) / (table**2).sum((0, 1))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_drawer_s_number_is_one_hand_throughout_an_alphabet(pools, split):
    """Else the drawings of one number would be no more alike than drawings at random."""
    pool, rng = pools[split], np.random.default_rng(0)
    table = features(pool)
    for alphabet in range(len(pool.group_names)):
        own = table[(pool.groups == alphabet).numpy()]
        shuffled = [np.stack([row[rng.permutation(20)] for row in own]) for _ in range(50)]
        assert explained(own).mean() > 2 * max(explained(other).mean() for other in shuffled)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_episodes_by_each_criterion(pools, split):
    pool = pools[split]
    episode = CriterionSampler(pool, 5, 5, 5).batch(range(60))
    assert set(episode.pool_ids.tolist()) == {0, 1, 2}
    rows = torch.cat([episode.support_ids, episode.query_ids], 1)
    alphabets = pool.attributes[1].values[rows]
    of_one = (alphabets == alphabets[:, :1]).all(1)
    assert torch.equal(of_one, episode.pool_ids != 1)  # characters and drawers within one alphabet
    drawers = rows[episode.pool_ids == 2] % 20
    assert (drawers[:, :25].view(-1, 5, 5) == drawers[:, :25].view(-1, 5, 5)[..., :1]).all()
