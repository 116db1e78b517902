"""The real Omniglot and miniImageNet: counts, splits, and pixels."""

import hashlib

import numpy as np
import pytest
import torch

import episodes
from episodes import EpisodeSampler, EpisodesError
from episodes.datasets.miniimagenet import find_split
from episodes.datasets.omniglot import find_omniglot, list_characters, read_drawing

pytestmark = pytest.mark.real
ROOT = episodes.data_root()

needs_omniglot = pytest.mark.skipif(find_omniglot(ROOT) is None, reason=f"no Omniglot under {ROOT}")
needs_miniimagenet = pytest.mark.skipif(
    find_split(ROOT, "val") is None, reason=f"no miniImageNet under {ROOT}"
)


def classes(name, scheme=None, splits=("train", "val", "test")):
    return {split: episodes.load(name, split, scheme=scheme, in_memory=False).class_names for split in splits}


@needs_omniglot
@pytest.mark.parametrize(
    ("scheme", "sizes"),
    [
        ("vinyals", (1028, 172, 423)),
        ("random", (1100, 100, 423)),
        ("lake", (964, 659)),
        ("lake-val", (792, 172, 659)),
    ],
)
def test_omniglot_splits(scheme, sizes):
    splits = ("train", "test") if scheme == "lake" else ("train", "val", "test")
    found = classes("omniglot", scheme, splits)
    assert tuple(map(len, found.values())) == sizes
    assert len({name for names in found.values() for name in names}) == 1623
    if scheme == "vinyals":  # as the published lists are where they lie beside the images
        for split, names in found.items():
            lines = ROOT / "omniglot" / "splits" / "vinyals" / f"{split}.txt"
            if lines.is_file():
                listed = {line.rpartition("/")[0] for line in lines.read_text().split()}
                assert set(names) == listed


@needs_omniglot
def test_omniglot_pool():
    pool = episodes.load("omniglot", "train")
    assert pool.image_shape == (1, 28, 28) and pool.counts.unique().tolist() == [20]
    assert len(pool.group_names) == 33 and pool.class_names[0] == "Alphabet_of_the_Magi/character01"
    mean, std = pool.mean_std()
    assert mean.item() == pytest.approx(0.0817, abs=1e-3) and std.item() == pytest.approx(0.2364, abs=1e-3)
    rotated = pool.rotated_classes()
    assert rotated.num_classes == 4112 and rotated.class_names[1] == "Alphabet_of_the_Magi/character01/rot090"
    first = list_characters(find_omniglot(ROOT))[0][2][0]
    np.testing.assert_array_equal(pool.images[0], read_drawing(first, 28))
    # A Braille drawing is there twice in the release, and no other.
    assert len({image.tobytes() for image in pool.images.numpy()}) == len(pool.images) - 1


@needs_omniglot
def test_omniglot_alphabets_of_the_test_split():
    pools = {split: episodes.load("omniglot", split) for split in ("train", "val", "test")}
    alphabets = {split: set(pool.group_names) for split, pool in pools.items()}
    assert alphabets["train"] & alphabets["test"] == {"Gurmukhi"}
    assert not alphabets["val"] & (alphabets["train"] | alphabets["test"])
    episode = EpisodeSampler(pools["test"], 20, 1, 5, within_group=True).batch(range(30))
    groups = pools["test"].groups[episode.class_ids]
    assert (groups == groups[:, :1]).all()
    with pytest.raises(EpisodesError, match="has 20 images, but 5 shots"):
        EpisodeSampler(pools["test"], 5, 5, 16)


@needs_omniglot
def test_omniglot_episodes_never_change():
    pool = episodes.load("omniglot", "test")
    episode = EpisodeSampler(pool.rotated_classes(), 5, 1, 15, seed=0).batch(range(100))
    rows = torch.cat([episode.support_ids, episode.query_ids], 1)
    assert hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16] == "75fab3d991d060e6"


@needs_miniimagenet
def test_miniimagenet_pools():
    found = classes("miniimagenet")
    assert {split: len(names) for split, names in found.items()} == {"train": 64, "val": 16, "test": 20}
    assert len({name for names in found.values() for name in names}) == 100
    pool = episodes.load("miniimagenet", "val", in_memory=False)
    assert pool.image_shape == (3, 84, 84) and pool.counts.unique().tolist() == [600]
    mean, std = pool.mean_std()
    assert mean.tolist() == pytest.approx([0.47, 0.45, 0.40], abs=0.05)
    assert std.tolist() == pytest.approx([0.28, 0.27, 0.29], abs=0.05)


@needs_miniimagenet
def test_miniimagenet_labels_are_those_of_the_files():
    csv = find_split(ROOT, "test")
    if csv.suffix != ".csv":
        pytest.skip("the copy here has no table")
    from episodes.datasets.miniimagenet import list_csv
    from episodes.files.images import read_image

    pool = episodes.load("miniimagenet", "test", in_memory=False)
    for c, (wnid, files) in enumerate(list_csv(csv, "test")):
        assert pool.class_names[c] == wnid and len(files) == 600
        for i in (0, 299, 599):
            assert files[i].name.startswith(wnid)
            np.testing.assert_array_equal(pool.class_images(c)[i], read_image(files[i], 3, 84))


@needs_omniglot
@needs_miniimagenet
def test_a_mixture_of_both():
    pools = [
        episodes.load("omniglot", "val", image_size=32).with_channels(3),
        episodes.load("miniimagenet", "val", image_size=32),
    ]
    episode = EpisodeSampler(pools, 5, 1, 5, within_group=[True, False]).batch(range(40))
    assert episode.query_images.shape == (40, 25, 3, 32, 32)
    assert 8 < int(episode.pool_ids.sum()) < 32
