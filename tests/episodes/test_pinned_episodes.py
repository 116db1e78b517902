"""The drawn episodes, pinned to the last bit: results committed anywhere depend on them. Never renew a digest
to make a test pass."""

import hashlib

import numpy as np
import pytest
import torch

from episodes import ClassPool, EpisodeSampler, EpisodesError
from episodes.transforms.augment import CropFlip, Shift

COUNTS = (7, 9, 6, 12, 8, 6, 10, 7)
GROUPS = ("x", "x", "y", "x", "y", "z", "y", "y")
FIELDS = (
    "class_ids",
    "pool_ids",
    "support_ids",
    "query_ids",
    "support_labels",
    "query_labels",
    "support_images",
    "query_images",
    "support_views",
)


def made_pool(mark, size=11, channels=2):
    """Images from integer arithmetic alone: every byte value occurs."""
    total = sum(COUNTS)
    numbers = np.arange(total * channels * size * size, dtype=np.uint64) + np.uint64(mark)
    pixels = (numbers * np.uint64(2654435761) >> np.uint64(13)).astype(np.uint8)
    images = torch.from_numpy(pixels.reshape(total, channels, size, size))
    return ClassPool.from_arrays(images, np.repeat(np.arange(len(COUNTS)), COUNTS), None, GROUPS)


def digest(sampler, numbers=range(24)):
    found = hashlib.sha256()
    for episode in sampler.batches(numbers, 16):
        found.update(repr(episode.index.tolist()).encode())
        for name in FIELDS:
            if (tensor := getattr(episode, name)) is not None:
                assert tensor.is_contiguous(), name
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                found.update(tensor.numpy().tobytes())
    return found.hexdigest()[:24]


SETTINGS = {
    "plain": ((5, 1, 4), {}),
    "ranges": (((2, 5), (1, 3), 2), {}),
    "groups": ((3, 2, 3), {"within_group": True}),
    "mixture": ((4, 1, 3), {"weights": [1, 2]}),
    "rotation": ((5, 2, 3), {"rotation": "per-class"}),
    "augment": ((4, 1, 4), {"augment": CropFlip(2)}),
    "reflect": ((4, 1, 4), {"augment": CropFlip(3, "reflect")}),
    "views": ((3, 2, 1), {"views": 2, "view_augment": Shift(2)}),
    "all": (
        ((2, 4), (1, 2), 3),
        {
            "weights": [3, 1],
            "within_group": [True, False],
            "rotation": "per-class",
            "augment": Shift(1),
            "views": 2,
            "view_augment": CropFlip(1),
        },
    ),
}
DIGESTS = {
    "plain": "8f3d5fcf49ef110869c62673",
    "ranges": "c68b569cb1e4e61a0606f8b0",
    "groups": "71506cdaacc34913fcda91ee",
    "mixture": "c4ddcfbbdb124a45b9213fb0",
    "rotation": "2246d135cbd9bfcffbeead52",
    "augment": "9d2ef1aef59387fc9e04212b",
    "reflect": "7a85121bae877a35cbb32571",
    "views": "236129871a5d09662ef51fa7",
    "all": "b7d634e413265b545d023942",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_drawn_episodes_never_change(name):
    shape, options = SETTINGS[name]
    pools = [made_pool(0), made_pool(5)] if "weights" in options else made_pool(0)
    assert digest(EpisodeSampler(pools, *shape, seed=20, **options)) == DIGESTS[name]


def test_a_pool_of_strided_images_serves_the_same_episodes():
    pool = made_pool(0)
    strided = ClassPool(
        pool.images.transpose(2, 3).contiguous().transpose(2, 3), pool.offsets, pool.class_names
    )
    assert digest(EpisodeSampler(strided, 4, 1, 2)) == digest(EpisodeSampler(pool, 4, 1, 2))
    assert pool.images.data_ptr() == EpisodeSampler(pool, 4, 1, 2).pools[0].images.data_ptr()


def test_no_queries_from_a_mixture_and_with_any_augmentation():
    from episodes.transforms.augment import by_name

    pools = [made_pool(0, channels=3), made_pool(5, channels=3)]
    for name in ("shift", "crop-flip-jitter", "affine"):
        episode = EpisodeSampler(pools, 3, 2, 0, augment=by_name(name)).batch(range(6))
        assert episode.query_images.shape == (6, 0, 3, 11, 11)
        assert episode.query_labels.shape == (6, 0)


def test_an_image_larger_than_a_piece_is_gathered_whole():
    images = torch.randint(0, 256, (6, 1, 600, 600), dtype=torch.uint8)
    pool = ClassPool.from_arrays(images, [0, 0, 0, 1, 1, 1])
    episode = EpisodeSampler(pool, 2, 1, 2).batch([0, 1])
    assert torch.equal(episode.query_images, images[episode.query_ids] / 255)


@pytest.mark.parametrize("augment", [Shift(3), CropFlip(2), CropFlip(4, "reflect"), CropFlip(0)])
def test_crops_are_the_same_with_and_without_the_cpu_path(augment):
    images = torch.rand(9, 3, 8, 10)
    uniforms = torch.rand(9, augment.num_uniforms, dtype=torch.float64)
    fast = augment(images, uniforms)
    assert torch.equal(fast.double(), augment(images.double(), uniforms))
    followed = augment(images.clone().requires_grad_(), uniforms)
    assert followed.requires_grad and torch.equal(fast, followed)


def test_an_impossible_reflection_is_refused():
    with pytest.raises(EpisodesError, match="reflecting 8 pixels"):
        CropFlip(8, "reflect")(torch.zeros(1, 1, 8, 8), torch.zeros(1, 3))
