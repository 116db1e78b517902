"""EpisodeSampler against a naive reference, its promises as properties, and its stream pinned for ever."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes import ClassPool, Episode, EpisodeSampler, EpisodesError
from episodes.counter import Stream, uniforms, words
from episodes.transforms.augment import Shift

FIELDS = (
    "support_images",
    "support_labels",
    "query_images",
    "query_labels",
    "index",
    "class_ids",
    "support_ids",
)


# What seed 7 draws. Results committed anywhere depend on it: a change here is a change of every one of them.
GOLDEN_DIGEST = "b101f89b1aefeea723d5ee10b6b9c4296c462fb06401b699682d3eb7646d076f"
GOLDEN_CLASSES = [[6, 4, 7, 3, 1]]


def make_pool(counts, groups=None, size=2, name="toy", channels=1, mark=0):
    """Image number r holds r in its first pixels (base 256), so that a picture tells its row."""
    total = sum(counts)
    images = torch.zeros(total, channels, size, size, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(total) % 256
    images[:, 0, 0, 1] = torch.arange(total) // 256
    images[:, 0, 1, 1] = mark  # tells its pool
    labels = np.repeat(np.arange(len(counts)), counts)
    return ClassPool.from_arrays(images, labels, None, groups, name, "train")


POOL = make_pool([7, 9, 6, 12, 8, 6, 10, 7], ["x", "x", "y", "x", "y", "z", "y", "y"])


def naive_order(seed, episode, stream, total, *position):
    """All candidates in the order of their keys, ties (of the leading bits) by number."""
    keys = words(seed, [episode], stream, (*(p + 1 for p in position), total))[0][position]
    bits = max((total - 1).bit_length(), 1)
    return sorted(range(total), key=lambda c: (int(keys[c]) >> bits, c))


def naive_episode(pool, ways, shots, queries, seed, episode, within_group):
    """Class numbers, support rows and query rows of one episode, drawn one at a time."""
    classes = list(range(pool.num_classes))
    if within_group:
        groups = [[c for c in classes if pool.groups[c] == g] for g in range(len(pool.group_names))]
        slots = [
            group for group in groups if len(group) >= ways for _ in group
        ]  # one per class: proportional
        classes = slots[int(uniforms(seed, [episode], Stream.GROUP)[0] * len(slots))]
    drawn = [classes[c] for c in naive_order(seed, episode, Stream.CLASSES, len(classes))[:ways]]
    support, query = [], []
    for label, c in enumerate(drawn):
        widest = max(int(pool.counts[d]) for d in drawn)
        bits = max((widest - 1).bit_length(), 1)
        keys = words(seed, [episode], Stream.IMAGES, (ways, widest))[0, label]
        order = sorted(range(int(pool.counts[c])), key=lambda i: (int(keys[i]) >> bits, i))
        rows = [int(pool.offsets[c]) + i for i in order[: shots + queries]]
        support += rows[:shots]
        query += rows[shots:]
    return drawn, support, query


@pytest.mark.parametrize("within_group", [False, True])
def test_draws_what_the_naive_reference_draws(within_group):
    sampler = EpisodeSampler(POOL, 3, 2, 3, seed=11, within_group=within_group)
    episode = sampler.batch(range(40))
    for t in range(40):
        classes, support, query = naive_episode(POOL, 3, 2, 3, 11, t, within_group)
        assert episode.class_ids[t].tolist() == classes
        assert episode.support_ids[t].tolist() == support
        assert episode.query_ids[t].tolist() == query


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(5, 15), min_size=3, max_size=12),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(-5, 2**64),
    st.lists(st.integers(0, 10**12), min_size=1, max_size=6),
)
def test_promises(counts, ways, shots, queries, seed, indices):
    pool = make_pool(counts)
    episode = EpisodeSampler(pool, ways, shots, queries, seed).batch(indices)
    assert episode.index.tolist() == indices and (episode.ways, episode.shots, episode.queries) == (
        ways,
        shots,
        queries,
    )
    assert episode.support_images.shape == (len(indices), ways * shots, 1, 2, 2)
    assert episode.query_images.dtype == torch.float32 and episode.support_labels.dtype == torch.int64
    for t in range(len(indices)):
        rows = episode.support_ids[t].tolist() + episode.query_ids[t].tolist()
        assert len(set(rows)) == len(rows)  # support and query are disjoint, nothing is drawn twice
        assert len(set(episode.class_ids[t].tolist())) == ways
        # class-major, and the image is its row's, and the row is its label's class's
        assert episode.support_labels[t].tolist() == [w for w in range(ways) for _ in range(shots)]
        assert episode.query_labels[t].tolist() == [w for w in range(ways) for _ in range(queries)]
        labels = episode.support_labels[t].tolist() + episode.query_labels[t].tolist()
        images = torch.cat([episode.support_images[t], episode.query_images[t]])
        for row, label, image in zip(rows, labels, images, strict=True):
            c = int(episode.class_ids[t, label])
            assert pool.offsets[c] <= row < pool.offsets[c + 1]
            assert torch.equal(image, pool.images[row].float() / 255)


class Noise:
    """Adds its first draw: changes if anything about the draws does."""

    num_uniforms = 2

    def __call__(self, images, uniforms):
        shift = uniforms[:, 0].float().view(-1, *[1] * (images.ndim - 1))
        return images + shift


FULL = {
    "rotation": "per-class",
    "augment": Noise(),
    "views": 2,
    "view_augment": Noise(),
    "transform": Noise(),
}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(1, 4))
def test_an_episode_is_the_same_in_any_batch(indices, max_tasks):
    pools = [POOL, make_pool([9, 9, 9, 9, 9, 9], name="other", mark=1)]
    sampler = EpisodeSampler(pools, (2, 4), (1, 2), 2, 3, weights=[1, 2], **FULL)
    seen = 0
    for episode in sampler.batches(indices, max_tasks):
        assert episode.tasks <= max_tasks
        for t in range(episode.tasks):
            alone = EpisodeSampler(pools, (2, 4), (1, 2), 2, 3, weights=[1, 2], **FULL)[int(episode.index[t])]
            for name in (*FIELDS, "query_ids", "support_views", "pool_ids"):
                assert torch.equal(getattr(episode, name)[t], getattr(alone, name)[0]), name
            seen += 1
    assert seen == len(indices)


def test_other_seeds_and_other_episodes_differ():
    first = EpisodeSampler(POOL, 3, 2, 3, seed=0).batch(range(20))
    other = EpisodeSampler(POOL, 3, 2, 3, seed=1).batch(range(20))
    assert not torch.equal(first.class_ids, other.class_ids)
    assert len({tuple(row) for row in first.support_ids.tolist()}) == 20


def test_the_stream_never_changes():
    digest = hashlib.sha256()
    for within_group in (False, True):
        sampler = EpisodeSampler(POOL, (2, 4), (1, 2), 3, seed=7, within_group=within_group, **FULL)
        for i in range(10):
            episode = sampler[i]
            for ids in (episode.class_ids, episode.support_ids, episode.query_ids):
                digest.update(repr(ids.tolist()).encode())
            for images in (episode.query_images, episode.support_views):
                digest.update(repr((images.double().sum() * 1000).round().item()).encode())
    assert digest.hexdigest() == GOLDEN_DIGEST
    assert EpisodeSampler(POOL, 5, 1, 1, seed=7)[0].class_ids.tolist() == GOLDEN_CLASSES


def test_every_class_image_label_and_group_gets_its_share():
    episode = EpisodeSampler(POOL, 2, 1, 1, seed=0).batch(range(8000))
    for label in (0, 1):
        assert torch.bincount(episode.class_ids[:, label], minlength=8).numpy() == pytest.approx(
            1000, rel=0.15
        )
    mine = episode.support_ids[episode.class_ids == 3]
    assert torch.bincount(mine - POOL.offsets[3], minlength=12).numpy() == pytest.approx(
        len(mine) / 12, rel=0.3
    )
    grouped = EpisodeSampler(POOL, 3, 1, 1, seed=0, within_group=True).batch(range(7000))
    groups = POOL.groups[grouped.class_ids]
    assert (groups == groups[:, :1]).all()  # one group per episode
    # x has 3 classes, y has 4, z has too few for 3 ways
    assert torch.bincount(groups[:, 0], minlength=3).numpy() == pytest.approx([3000, 4000, 0], rel=0.1)


def test_ranges_are_inclusive_and_even():
    sampler = EpisodeSampler(POOL, (2, 4), (1, 3), 1)
    shapes = sampler.shapes(range(9000))
    assert [shapes.count((w, s)) for w in (2, 3, 4) for s in (1, 2, 3)] == pytest.approx([1000] * 9, rel=0.15)
    for episode in sampler.batches(range(30), 5):
        assert {(episode.ways, episode.shots)} == {shapes[i] for i in episode.index.tolist()}


def test_batches_keep_the_order_within_a_shape():
    sampler = EpisodeSampler(POOL, (2, 3), 1, 1)
    shapes = sampler.shapes(range(12))
    found = [episode.index.tolist() for episode in sampler.batches(range(12))]
    expected = [[i for i in range(12) if shapes[i] == shape] for shape in dict.fromkeys(shapes)]
    assert found == expected


def test_fewer_ways_or_shots_are_the_first_of_more():
    many, few = EpisodeSampler(POOL, 4, 1, 0)[5], EpisodeSampler(POOL, 2, 1, 0)[5]
    assert many.class_ids[0, :2].tolist() == few.class_ids[0].tolist()
    assert many.support_ids[0, :2].tolist() == few.support_ids[0].tolist()


def test_mixture_follows_its_weights():
    pools = [POOL, make_pool([9] * 5, mark=1), make_pool([9] * 4, mark=2)]
    episode = EpisodeSampler(pools, 2, 1, 1, weights=[1, 0, 3]).batch(range(4000))
    assert torch.bincount(episode.pool_ids, minlength=3).numpy() == pytest.approx([1000, 0, 3000], rel=0.1)
    images = torch.stack(
        [pools[p].images[r] for p, r in zip(episode.pool_ids, episode.query_ids[:, 0], strict=True)]
    )
    assert torch.equal(episode.query_images[:, 0], images / 255)
    equal = EpisodeSampler(pools, 2, 1, 1).batch(range(3000)).pool_ids
    assert torch.bincount(equal).numpy() == pytest.approx(1000, rel=0.1)


def test_mixture_with_groups_in_one_pool_only():
    episode = EpisodeSampler([POOL, make_pool([9] * 5)], 3, 1, 1, within_group=[True, False]).batch(range(60))
    groups = POOL.groups[episode.class_ids[episode.pool_ids == 0]]
    assert len(groups) > 5 and (groups == groups[:, :1]).all()


MIXTURE = [POOL, make_pool([9] * 5, mark=1), make_pool([9] * 4, mark=2)]


def test_a_mixture_s_pools_have_their_own_transform_and_augmentation():
    changes = {"transform": [None, Noise(), None], "augment": [Noise(), None, Noise()]}
    plain, found = (
        EpisodeSampler(MIXTURE, 2, 2, 3, seed=4, **more).batch(range(30)) for more in ({}, changes)
    )
    assert set(found.pool_ids.tolist()) == {0, 1, 2}
    for t, p in enumerate(found.pool_ids.tolist()):
        one = {name: values[p] for name, values in changes.items()}
        alone = EpisodeSampler(MIXTURE, 2, 2, 3, seed=4, **one)[t]
        for part in ("support_images", "query_images"):
            assert torch.equal(getattr(alone, part)[0], getattr(found, part)[t])
            assert not torch.equal(getattr(plain, part)[t], getattr(found, part)[t])
    single = EpisodeSampler(MIXTURE, 2, 2, 3, seed=4, transform=[None, Noise(), None])
    assert torch.equal(single[0].query_images, single.batch(range(30)).query_images[:1])


def test_episodes_in_a_row_may_come_from_one_pool():
    sampler = EpisodeSampler(MIXTURE, 2, 1, 1, seed=3, pool_run=4, weights=[1, 2, 1])
    runs = sampler.batch(range(1200)).pool_ids.view(-1, 4)
    assert (runs == runs[:, :1]).all()
    assert torch.bincount(runs[:, 0]).numpy() == pytest.approx([75, 150, 75], rel=0.25)
    each = EpisodeSampler(MIXTURE, 2, 1, 1, seed=3, weights=[1, 2, 1]).batch(range(300)).pool_ids
    assert torch.equal(runs[:, 0], each), "a run's pool is that of its number"
    assert sampler[5].pool_ids.tolist() == runs[1, :1].tolist()


def test_domains_are_the_pools_names_made_distinct():
    other = make_pool([9] * 4, name="")
    assert EpisodeSampler([POOL, other], 2, 1, 1).domains == ("toy", "pool 1")
    assert EpisodeSampler([POOL, other, POOL], 2, 1, 1).domains == ("toy (1)", "pool 1", "toy (2)")
    assert EpisodeSampler(POOL, 2, 1, 1).domains == ("toy",)


def test_rotation_turns_a_class_as_a_whole():
    pool = ClassPool.from_arrays(
        torch.arange(16, dtype=torch.uint8).view(4, 1, 2, 2).repeat(3, 1, 1, 1), [0] * 6 + [1] * 6
    )
    episode = EpisodeSampler(pool, 2, 2, 3, rotation="per-class").batch(range(200))
    seen = set()
    for t in range(200):
        for label in (0, 1):
            rows = torch.cat([ids[t].view(2, -1)[label] for ids in (episode.support_ids, episode.query_ids)])
            images = torch.cat(
                [i[t].unflatten(0, (2, -1))[label] for i in (episode.support_images, episode.query_images)]
            )
            fits = [
                k
                for k in range(4)
                if torch.equal(images, torch.rot90(pool.images[rows], k, (-2, -1)).float() / 255)
            ]
            assert len(fits) == 1
            seen.add((label, fits[0]))
    assert len(seen) == 8


def test_transform_gets_one_draw_per_episode_and_augment_one_per_image():
    plain = EpisodeSampler(POOL, 2, 2, 3, seed=4).batch(range(6))
    styled = EpisodeSampler(POOL, 2, 2, 3, seed=4, transform=Noise()).batch(range(6))
    shifts = torch.cat(
        [styled.support_images - plain.support_images, styled.query_images - plain.query_images], 1
    )
    assert (shifts.flatten(1).std(1) < 1e-6).all() and len(shifts[:, 0, 0, 0, 0].unique()) == 6
    both = EpisodeSampler(
        POOL, 2, 2, 3, seed=4, transform=Noise(), augment=Noise(), views=2, view_augment=Noise()
    )
    noisy = both.batch(range(6))
    shifts = torch.cat(
        [noisy.support_images - styled.support_images, noisy.query_images - styled.query_images], 1
    )
    assert (shifts.flatten(2).std(2) < 1e-6).all() and len(shifts[:, :, 0, 0, 0].unique()) == 6 * 10
    assert noisy.support_views.shape == (6, 2, 4, 1, 2, 2)
    views = noisy.support_views - noisy.support_images[:, None]  # made from the augmented support
    assert (views.flatten(3).std(3) < 1e-6).all() and len(views[..., 0, 0, 0].unique()) == 6 * 2 * 4
    assert plain.support_views is None and torch.equal(plain.support_ids, noisy.support_ids)


SMALL = make_pool([5, 3, 5], ["x", "x", "y"])


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (([SMALL, POOL], 2, 1, 1), {"augment": [Shift()] * 3}, "augment has 3 values for 2 pools"),
        ((SMALL, 2, 1, 1), {"transform": []}, "transform has 0 values for 1 pools"),
        ((SMALL, 2, 1, 1), {"pool_run": 0}, "pool_run=0"),
        ((SMALL, 2, 1, 3), {}, "class '1' of toy train has 3 images, but 1 shots \\+ 3 queries need 4"),
        ((SMALL, 2, (1, 3), 1), {}, "need 4"),
        ((SMALL, 4, 1, 1), {}, "has 3 classes, but 4 ways"),
        ((SMALL, (2, 4), 1, 1), {}, "has 3 classes, but 4 ways"),
        ((SMALL, 3, 1, 1), {"within_group": True}, "the largest, 'x', has 2"),
        ((make_pool([5, 5]), 2, 1, 1), {"within_group": True}, "has none"),
        (([SMALL, POOL], 2, 1, 1), {"within_group": [True]}, "1 values for 2 pools"),
        (([SMALL, make_pool([5, 5], size=3)], 2, 1, 1), {}, "one image shape"),
        (([SMALL, POOL], 2, 1, 1), {"weights": [1, -1]}, "non-negative"),
        (([], 2, 1, 1), {}, "at least one pool"),
        ((SMALL, 0, 1, 1), {}, "ways=0"),
        ((SMALL, 2, (3, 1), 1), {}, r"shots=\(3, 1\)"),
        ((SMALL, 2, 1, -1), {}, "queries=-1"),
        ((SMALL, 2, 1, 2.7), {}, "queries=2.7"),
        ((SMALL, (2.5, 3.7), 1, 1), {}, "ways=.2.5, 3.7."),
        ((SMALL, 2, None, 1), {}, "shots=None"),
        ((SMALL, "23", 1, 1), {}, "ways='23'"),
        ((SMALL, 2, 1, 1), {"views": 2}, "give both"),
        ((SMALL, 2, 1, 1), {"rotation": "some"}, "'some': choose"),
    ],
)
def test_refusals(arguments, options, says):
    with pytest.raises(EpisodesError, match=says):
        EpisodeSampler(*arguments, **options)


def test_batch_refuses_a_mixture_of_shapes_and_odd_numbers():
    with pytest.raises(EpisodesError, match="use `batches`"):
        EpisodeSampler(POOL, (2, 4), 1, 1).batch(range(20))
    for indices in ([], [-1], [[1]], [1.9], ["1"], [None], [2**70], [True], [[1], [1, 2]]):
        with pytest.raises(EpisodesError, match="non-empty list of integers"):
            EpisodeSampler(POOL, 2, 1, 1).batch(indices)


def test_numbers_of_numpy_s_are_numbers():
    numpy_s = EpisodeSampler(POOL, np.int64(2), np.int8(1), np.int64(1)).batch(np.arange(3, dtype=np.uint8))
    assert torch.equal(numpy_s.query_images, EpisodeSampler(POOL, 2, 1, 1).batch(range(3)).query_images)


def test_a_cat_of_single_episodes_is_the_batch():
    sampler = EpisodeSampler(POOL, 3, 1, 2)
    joined = Episode.cat([sampler[i] for i in range(5)])
    assert torch.equal(joined.query_images, sampler.batch(range(5)).query_images)


@pytest.mark.parametrize("rotation", ["none", "per-class"])
def test_uint8_images_are_the_pixels_as_they_are(rotation) -> None:
    options = {"ways": (2, 4), "shots": (1, 3), "queries": 2, "seed": 5, "rotation": rotation}
    floats, pixels = (EpisodeSampler(POOL, **options, dtype=kind) for kind in (torch.float32, torch.uint8))
    for i in range(6):
        expected, found = floats[i], pixels[i]
        assert found.support_images.dtype == found.query_images.dtype == torch.uint8
        assert torch.equal(found.support_images.float() / 255, expected.support_images)
        assert torch.equal(found.query_images.float() / 255, expected.query_images)
        assert torch.equal(found.support_ids, expected.support_ids)


def test_uint8_images_can_not_be_changed() -> None:
    with pytest.raises(EpisodesError, match=r"dtype torch\.uint8 with a transform, augment or views"):
        EpisodeSampler(POOL, 2, 1, 1, augment=Shift(1), dtype=torch.uint8)
    with pytest.raises(EpisodesError, match=r"dtype is torch\.float64: choose"):
        EpisodeSampler(POOL, 2, 1, 1, dtype=torch.float64)
