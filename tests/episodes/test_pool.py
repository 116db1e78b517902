"""ClassPool: sorting, subsets, rotations, channels, moments, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

from episodes import ClassPool, EpisodesError


def make(counts=(3, 2, 4), channels=1, size=4, groups=("b", "a", "b")):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (sum(counts), channels, size, size), dtype=torch.uint8, generator=generator
    )
    labels = [c for c, count in enumerate(counts) for _ in range(count)]
    names = [f"c{c}" for c in range(len(counts))]
    return ClassPool.from_arrays(
        images, labels, names, groups[: len(counts)] if groups else None, "toy", "train"
    )


def test_from_arrays_sorts_by_class_and_keeps_the_order_inside():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    pool = ClassPool.from_arrays(images, [1, 0, 1, 0, 1, 0])
    assert pool.images.flatten().tolist() == [1, 3, 5, 0, 2, 4]
    assert pool.offsets.tolist() == [0, 3, 6] and pool.class_names == ("0", "1")
    assert pool.class_images(1).flatten().tolist() == [0, 2, 4]


def test_sizes_and_groups():
    pool = make()
    assert (pool.num_classes, pool.counts.tolist(), pool.image_shape) == (3, [3, 2, 4], (1, 4, 4))
    assert pool.group_names == ("a", "b") and pool.groups.tolist() == [1, 0, 1]
    assert repr(pool) == "ClassPool(toy train: 9 images of (1, 4, 4), 3 classes)"


@pytest.mark.parametrize("wanted", [[2, 1], ["c2", "c1"]])
def test_subset_by_number_and_by_name(wanted):
    pool = make()
    part = pool.subset(wanted)
    assert part.class_names == ("c2", "c1") and part.counts.tolist() == [4, 2]
    assert torch.equal(part.class_images(0), pool.class_images(2))
    assert torch.equal(part.class_images(1), pool.class_images(1))
    assert [part.group_names[g] for g in part.groups] == ["b", "a"] and part.split == "train"


def test_subset_drops_groups_without_classes():
    assert make().subset(["c1"]).group_names == ("a",)


def test_rotated_classes_turn_anticlockwise_as_pillow_does():
    pool = make()
    turned = pool.rotated_classes()
    assert turned.num_classes == 12 and turned.class_names[4:8] == tuple(
        f"c1/rot{a}" for a in ("000", "090", "180", "270")
    )
    assert [turned.group_names[g] for g in turned.groups[:8]] == [
        f"{group}/rot{a}" for group in ("b", "a") for a in ("000", "090", "180", "270")
    ]
    for c in range(3):
        for k in range(4):
            for before, after in zip(pool.class_images(c), turned.class_images(4 * c + k), strict=True):
                expected = np.asarray(Image.fromarray(before[0].numpy()).rotate(90 * k))
                np.testing.assert_array_equal(after[0].numpy(), expected)


def test_channels_as_pillow_converts_them():
    colour = make(channels=3)
    grey = colour.with_channels(1)
    for before, after in zip(colour.images, grey.images, strict=True):
        expected = Image.fromarray(before.permute(1, 2, 0).numpy()).convert("L")
        np.testing.assert_array_equal(after[0].numpy(), np.asarray(expected))
    assert torch.equal(grey.with_channels(3).images[:, 2:], grey.images)
    assert colour.with_channels(3) is colour


def test_mean_and_std_are_those_of_the_pixels(monkeypatch):
    pool = make(channels=3)
    mean, std = pool.mean_std()
    values = pool.images.double() / 255
    torch.testing.assert_close(mean.double(), values.mean((0, 2, 3)))
    torch.testing.assert_close(std.double(), values.std((0, 2, 3), correction=0))
    assert mean.dtype == torch.float32
    monkeypatch.setattr("episodes.pool._MOMENT_IMAGES", 5)
    fewer, again = pool.mean_std()[0], pool.mean_std()[0]
    assert torch.equal(fewer, again) and not torch.equal(fewer, mean)


def test_from_files(tmp_path):
    for name, value in [("a1", 10), ("a2", 20), ("b1", 30)]:
        Image.new("L", (3, 3), value).save(tmp_path / f"{name}.png")
    files = [("a", [tmp_path / "a1.png", tmp_path / "a2.png"]), ("b", [tmp_path / "b1.png"])]
    pool = ClassPool.from_files(files, lambda path: np.asarray(Image.open(path))[None])
    assert pool.images[:, 0, 0, 0].tolist() == [10, 20, 30] and pool.offsets.tolist() == [0, 2, 3]
    (tmp_path / "b1.png").write_bytes(b"not a picture")
    with pytest.raises(EpisodesError, match=r"can't read .*b1\.png"):
        ClassPool.from_files(files, lambda path: np.asarray(Image.open(path))[None])


GOOD = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("make_it", "says"),
    [
        (lambda: ClassPool.from_arrays(GOOD.float(), [0, 0, 1, 1]), "uint8 .* got torch.float32"),
        (lambda: ClassPool.from_arrays(GOOD, [0, 0, 1]), "4 images and 3 labels"),
        (lambda: ClassPool.from_arrays(GOOD, [0, 0, 2, 2]), "no images for class '1'"),
        (lambda: ClassPool.from_arrays(GOOD, [0, 0, 2, 2], ["a", "b"]), "0 to 2 but there are 2 classes"),
        (lambda: ClassPool.from_arrays(GOOD, [0, 0, 1, 1], ["a", "a"]), "class 'a' appears twice"),
        (lambda: ClassPool(GOOD, torch.tensor([0, 3, 3]), ("a", "b")), "no class empty"),
        (lambda: ClassPool(GOOD, torch.tensor([0, 2, 4]), ("a",)), r"offsets int64 \[2\]"),
        (lambda: make().subset([3]), "no class 3 in"),
        (lambda: make().subset(["zebra"]), "no class 'zebra'"),
        (lambda: make().subset([]), "at least one"),
        (lambda: make().subset([0, 0]), "appears twice"),
        (lambda: make().class_images(-1), "choose 0 to 2"),
        (lambda: make().with_channels(2), "can't turn 1 channels into 2"),
        (lambda: ClassPool.from_arrays(GOOD[..., :1], [0] * 4).rotated_classes(), "can't be rotated"),
    ],
)
def test_refusals(make_it, says):
    with pytest.raises(EpisodesError, match=says):
        make_it()
