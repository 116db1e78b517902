"""CriterionSampler against a naive reference, its promises as properties, and its stream pinned for ever."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes import Attribute, ClassPool, CriterionSampler, Episode, EpisodesError
from episodes.counter import Stream, uniforms, words
from episodes.transforms.augment import Shift

# What seed 7 draws. Results committed anywhere depend on it: a change here is a change of every one of them.
GOLDEN_DIGEST = "0787c2ca8c8111cab16a4190e4c988b468eadb024b846c95f815f868b8c039cf"
FIELDS = (
    "support_images",
    "support_labels",
    "query_images",
    "query_labels",
    "index",
    "class_ids",
    "support_ids",
    "query_ids",
    "pool_ids",
)


def make_pool(images=240, seed=0):
    """Three attributes drawn independently, the last in groups; image r holds r in its pixels."""
    draws = uniforms(seed, range(3), 1000, (images,))
    pixels = torch.zeros(images, 1, 2, 2, dtype=torch.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = torch.arange(images) % 256, torch.arange(images) // 256
    shape, ink, hand = (torch.from_numpy(np.int64(draws[a] * high)) for a, high in enumerate((8, 5, 12)))
    attributes = (
        Attribute("shape", shape, tuple(f"s{v}" for v in range(8))),
        Attribute("ink", ink, tuple(f"i{v}" for v in range(5))),
        Attribute("hand", hand, tuple(f"h{v}" for v in range(12)), torch.arange(12) // 4),
    )
    names = tuple(f"c{c}" for c in range(4))
    offsets = torch.arange(5) * (images // 4)
    return ClassPool(pixels, offsets, names, name="toy", split="train", attributes=attributes)


POOL = make_pool()


def order(seed, episode, stream, total, *position):
    """All candidates in the order of their keys, ties (of the leading bits) by number."""
    keys = words(seed, [episode], stream, (*(p + 1 for p in position), total))[0][position]
    bits = max((total - 1).bit_length(), 1)
    return sorted(range(total), key=lambda c: (int(keys[c]) >> bits, c))


def naive_episode(pool, ways, shots, queries, seed, episode, criteria):
    """Criterion, values, support rows and query rows of one episode, drawn one at a time."""
    which = int(uniforms(seed, [episode], Stream.CRITERION)[0] * len(criteria))
    (attribute,) = [a for a in pool.attributes if a.name == criteria[which]]
    members = {v: [] for v in range(len(attribute.value_names))}
    for row, value in enumerate(attribute.values.tolist()):
        members[value].append(row)
    able = [v for v in members if len(members[v]) >= shots + queries]
    if attribute.groups is not None:
        groups = {g: [v for v in able if attribute.groups[v] == g] for g in range(3)}
        slots = [group for group in groups.values() if len(group) >= ways for _ in group]
        able = slots[int(uniforms(seed, [episode], Stream.GROUP)[0] * len(slots))]
    drawn = [able[c] for c in order(seed, episode, Stream.CLASSES, len(able))[:ways]]
    widest = max(len(members[v]) for v in drawn)
    bits = max((widest - 1).bit_length(), 1)
    support, query = [], []
    for label, v in enumerate(drawn):
        keys = words(seed, [episode], Stream.IMAGES, (ways, widest))[0, label]
        chosen = sorted(range(len(members[v])), key=lambda i: (int(keys[i]) >> bits, i))
        rows = [members[v][i] for i in chosen[: shots + queries]]
        support += rows[:shots]
        query += rows[shots:]
    return which, drawn, support, query


@pytest.mark.parametrize("criteria", [("shape", "ink", "hand"), ("hand", "ink"), ("ink",)])
@pytest.mark.parametrize("shots", [2, 12])
def test_draws_what_the_naive_reference_draws(criteria, shots):
    """With 12 shots some hands have too few images, and are never drawn."""
    sampler = CriterionSampler(POOL, 3, shots, 8, seed=11, criteria=criteria)
    assert sampler.domains == criteria
    episode = sampler.batch(range(40))
    for t in range(40):
        which, values, support, query = naive_episode(POOL, 3, shots, 8, 11, t, criteria)
        assert int(episode.pool_ids[t]) == which
        assert episode.class_ids[t].tolist() == values
        assert episode.support_ids[t].tolist() == support
        assert episode.query_ids[t].tolist() == query


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 50),
    st.integers(2, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(-5, 2**64),
    st.lists(st.integers(0, 10**12), min_size=1, max_size=6),
)
def test_promises(made, ways, shots, queries, seed, indices):
    pool = make_pool(200, made)
    episode = CriterionSampler(pool, ways, shots, queries, seed).batch(indices)
    assert episode.index.tolist() == indices
    assert (episode.ways, episode.shots, episode.queries) == (ways, shots, queries)
    for t in range(len(indices)):
        attribute = pool.attributes[int(episode.pool_ids[t])]
        rows = episode.support_ids[t].tolist() + episode.query_ids[t].tolist()
        assert len(set(rows)) == len(rows)  # support and query are disjoint, nothing is drawn twice
        values = episode.class_ids[t].tolist()
        assert len(set(values)) == ways
        assert episode.support_labels[t].tolist() == [w for w in range(ways) for _ in range(shots)]
        assert episode.query_labels[t].tolist() == [w for w in range(ways) for _ in range(queries)]
        labels = episode.support_labels[t].tolist() + episode.query_labels[t].tolist()
        images = torch.cat([episode.support_images[t], episode.query_images[t]])
        for row, label, image in zip(rows, labels, images, strict=True):
            assert int(attribute.values[row]) == values[label]
            assert torch.equal(image, pool.images[row].float() / 255)
        if attribute.groups is not None:
            assert len({int(attribute.groups[v]) for v in values}) == 1


class Noise:
    """Adds its first draw: changes if anything about the draws does."""

    num_uniforms = 2

    def __call__(self, images, uniforms):
        return images + uniforms[:, 0].float().view(-1, 1, 1, 1)


FULL = {"weights": [1, 2, 3], "augment": Noise(), "views": 2, "view_augment": Noise()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(1, 4))
def test_an_episode_is_the_same_in_any_batch(indices, max_tasks):
    sampler = CriterionSampler(POOL, (2, 4), (1, 2), 2, 3, **FULL)
    seen = 0
    for episode in sampler.batches(indices, max_tasks):
        assert episode.tasks <= max_tasks
        for t in range(episode.tasks):
            alone = CriterionSampler(POOL, (2, 4), (1, 2), 2, 3, **FULL)[int(episode.index[t])]
            for name in (*FIELDS, "support_views"):
                assert torch.equal(getattr(episode, name)[t], getattr(alone, name)[0]), name
            seen += 1
    assert seen == len(indices)


def test_the_criterion_is_carried_along():
    episode = CriterionSampler(POOL, 3, 1, 1).batch(range(20))
    assert len(set(episode.pool_ids.tolist())) == 3
    assert episode.select(7).pool_ids.tolist() == [int(episode.pool_ids[7])]
    both = Episode.cat([episode.select(slice(0, 5)), episode.select(slice(5, 20))])
    assert torch.equal(both.to("cpu").pool_ids, episode.pool_ids)


def test_criteria_follow_their_weights_and_values_get_their_share():
    drawn = CriterionSampler(POOL, 2, 1, 1, weights=[1, 0, 3]).batch(range(4000)).pool_ids
    assert torch.bincount(drawn, minlength=3).numpy() == pytest.approx([1000, 0, 3000], rel=0.1)
    episode = CriterionSampler(POOL, 2, 1, 1).batch(range(6000))
    assert torch.bincount(episode.pool_ids).numpy() == pytest.approx(2000, rel=0.1)
    for criterion, values in enumerate((8, 5, 12)):
        mine = episode.class_ids[episode.pool_ids == criterion]
        for label in (0, 1):
            counts = torch.bincount(mine[:, label], minlength=values)
            assert counts.numpy() == pytest.approx(len(mine) / values, rel=0.3)


def test_the_other_attributes_tell_nothing_of_the_label():
    """Given the label, every value of the other attributes comes as often as in the pool."""
    episode = CriterionSampler(POOL, 2, 1, 0, criteria=["ink"]).batch(range(6000))
    shape = POOL.attributes[0]
    for label in (0, 1):
        found = torch.bincount(shape.values[episode.support_ids[:, label]], minlength=8) / 6000
        assert found.numpy() == pytest.approx(shape.counts.numpy() / len(POOL.images), abs=0.03)


def test_the_stream_never_changes():
    digest = hashlib.sha256()
    sampler = CriterionSampler(POOL, (2, 4), (1, 2), 3, seed=7, **FULL)
    for i in range(20):
        episode = sampler[i]
        for ids in (episode.pool_ids, episode.class_ids, episode.support_ids, episode.query_ids):
            digest.update(repr(ids.tolist()).encode())
        for images in (episode.query_images, episode.support_views):
            digest.update(repr((images.double().sum() * 1000).round().item()).encode())
    assert digest.hexdigest() == GOLDEN_DIGEST


def test_augment_and_views_get_one_draw_per_image():
    plain = CriterionSampler(POOL, 2, 2, 3, seed=4).batch(range(6))
    made = CriterionSampler(POOL, 2, 2, 3, seed=4, augment=Noise(), views=2, view_augment=Noise())
    episode = made.batch(range(6))
    for name in ("support_images", "query_images"):
        moved = (getattr(episode, name) - getattr(plain, name)).flatten(2)
        assert (moved.std(2) < 1e-6).all() and len(moved[..., 0].unique()) == moved[..., 0].numel()
    moved = (episode.support_views - episode.support_images[:, None]).flatten(3)
    assert len(moved[..., 0].unique()) == 6 * 2 * 4


def test_bytes_are_the_pixels_as_they_are():
    episode = CriterionSampler(POOL, 2, 2, 3, dtype=torch.uint8).batch(range(4))
    assert torch.equal(episode.query_images, POOL.images[episode.query_ids])
    with pytest.raises(EpisodesError, match=r"need torch\.float32"):
        CriterionSampler(POOL, 2, 2, 3, augment=Shift(), dtype=torch.uint8)
    with pytest.raises(EpisodesError, match="float64"):
        CriterionSampler(POOL, 2, 2, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ((2, 1, 1), {"criteria": ["hue"]}, "can't be sorted by 'hue': it has shape, ink, hand"),
        ((2, 1, 1), {"criteria": []}, "name one or several"),
        ((2, 1, 1), {"criteria": ["ink", "ink"]}, "each once"),
        ((2, 1, 1), {"weights": [1, 1]}, "for 3 criteria"),
        ((2, 1, 1), {"weights": [0, 0, 0]}, "not all zero"),
        ((6, 1, 1), {}, "toy train has 5 values of 'ink' with the 2 images"),
        ((5, 1, 1), {}, "has 4 values of 'hand' in one group"),
        (((2, 3), (1, 60), 9), {"criteria": ["ink"]}, "values of 'ink' with the 69 images that 60 shots"),
        ((2, 0, 1), {}, "shots=0"),
        ((2, 1, -1), {}, "queries=-1"),
        ((2, 1, 1), {"views": 1}, "give both"),
    ],
)
def test_impossible_requests(arguments, options, match):
    with pytest.raises(EpisodesError, match=match):
        CriterionSampler(POOL, *arguments, **options)


def test_a_pool_without_attributes():
    pool = ClassPool.from_arrays(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), [0, 0, 1, 1])
    with pytest.raises(EpisodesError, match="has no attributes"):
        CriterionSampler(pool, 2, 1, 1)


def test_one_batch_has_one_shape():
    with pytest.raises(EpisodesError, match="one shape"):
        CriterionSampler(POOL, (2, 4), 1, 1).batch(range(20))
