"""Torch datasets of every make become the same pool; a torchvision one as well."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from episodes.errors import EpisodesError
from episodes.interop.datasets import from_dataset

LABELS = [2, 0, 2, 5, 0, 2]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4), np.uint8)
ORDER = [1, 4, 0, 2, 5, 3]  # rows by label, each label's in their order


class Listed(Dataset):
    """A dataset of given images and labels, with any attributes."""

    def __init__(self, images, labels, /, **attributes):
        self.images, self.answers = images, labels
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.images[row], self.answers[row]


def pictures(pixels=PIXELS):
    return [Image.fromarray(p.transpose(1, 2, 0)) for p in pixels]


@pytest.mark.parametrize(
    "images",
    [
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).float() / 255,
        torch.from_numpy(PIXELS).double() / 255,
        PIXELS.transpose(0, 2, 3, 1),
        pictures(),
    ],
    ids=["uint8 tensor", "float tensor", "double tensor", "array", "PIL"],
)
def test_images_of_every_kind_make_the_same_pool(images):
    pool = from_dataset(Listed(images, LABELS), name="mine", split="train")
    assert torch.equal(pool.images, torch.from_numpy(PIXELS[ORDER]))
    assert pool.offsets.tolist() == [0, 2, 5, 6]
    assert (pool.class_names, pool.name, pool.split) == (("0", "2", "5"), "mine", "train")


def test_floating_point_is_rounded_to_the_nearest_level():
    image = torch.tensor([0.0, 0.4, 0.6, 100.6, 254.6, 255.0]).view(1, 2, 3) / 255
    pool = from_dataset(Listed([image], [0]))
    assert pool.images.flatten().tolist() == [0, 0, 1, 101, 255, 255]


@pytest.mark.parametrize("attribute", ["targets", "labels", "_labels"])
@pytest.mark.parametrize("kind", [list, torch.tensor, np.array])
def test_labels_are_taken_from_the_dataset_where_it_lists_them(attribute, kind):
    wrong = [0] * 6
    pool = from_dataset(Listed(pictures(), wrong, **{attribute: kind(LABELS)}))
    assert pool.counts.tolist() == [2, 3, 1]


def test_items_decide_when_labels_are_transformed_or_do_not_match():
    for attributes in ({"targets": [0] * 6, "target_transform": str}, {"targets": [0] * 9}):
        assert from_dataset(Listed(pictures(), LABELS, **attributes)).counts.tolist() == [2, 3, 1]


def test_a_tensor_dataset_and_a_subset_are_read_item_by_item():
    whole = TensorDataset(torch.from_numpy(PIXELS), torch.tensor(LABELS))
    assert from_dataset(whole).counts.tolist() == [2, 3, 1]
    part = from_dataset(Subset(whole, [3, 0, 2]))
    assert part.class_names == ("2", "5")
    assert torch.equal(part.images, torch.from_numpy(PIXELS[[0, 2, 3]]))


def test_class_names():
    classes = ["ant", "bee", ("cat", "kitty"), "dog", "eel", "fox"]
    assert from_dataset(Listed(pictures(), LABELS, classes=classes)).class_names == (
        "ant",
        "cat, kitty",
        "fox",
    )
    assert from_dataset(Listed(pictures(), LABELS, classes=["ant"])).class_names == ("0", "2", "5")
    words = [["ant", "bee"][label > 0] for label in LABELS]
    assert from_dataset(Listed(pictures(), words, classes=["x", "y"])).class_names == ("ant", "bee")


def test_grey_and_resizing():
    pool = from_dataset(Listed(pictures(), LABELS), image_size=8, channels=1)
    assert pool.image_shape == (1, 8, 8)
    # One colour stays that colour, whatever the size.
    plain = [Image.new(mode, (9, 7), 200) for mode in ("L", "P")]
    pool = from_dataset(Listed([plain[0], Image.new("1", (30, 20), 1)], [0, 1]), image_size=4)
    assert pool.image_shape == (1, 4, 4)
    assert pool.images.flatten(1).unique(dim=1).flatten().tolist() == [200, 255]
    assert from_dataset(Listed(torch.from_numpy(PIXELS[:, 0]), LABELS)).image_shape == (1, 5, 4)


@pytest.mark.parametrize("size", [None, 4])
def test_pictures_lie_on_white_and_keep_their_depth(size):
    """Black ink on nothing, and 16 bits: as a folder of the same pictures is read."""
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 255))
    pool = from_dataset(Listed([clear, clear.convert("LA")], [0, 1]), image_size=size, channels=1)
    for image in pool.images:
        assert image[0, 0].tolist() == [255, 0, 255, 255] and (image[0, 1:] == 255).all()
    deep = Image.fromarray(np.array([[0, 43690], [65535, 257]], np.uint16).repeat(2, 0).repeat(2, 1))
    pool = from_dataset(Listed([deep], [0]), image_size=size)
    assert pool.images[0, 0, ::2, ::2].tolist() == [[0, 170], [255, 1]]


def test_torchvision_image_folders(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    for row, (label, picture) in enumerate(zip(LABELS, pictures(), strict=True)):
        (tmp_path / f"class{label}").mkdir(exist_ok=True)
        picture.save(tmp_path / f"class{label}" / f"{row}.png")
    pool = from_dataset(datasets.ImageFolder(tmp_path))
    assert pool.class_names == ("class0", "class2", "class5")
    assert torch.equal(pool.images, torch.from_numpy(PIXELS[ORDER]))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (Listed([], []), {}, "empty"),
        (Stream(), {}, "no length"),
        (Listed(torch.randn(6, 3, 4, 4), LABELS), {}, "Normalize"),
        (Listed(torch.full((6, 3, 4, 4), torch.nan), LABELS), {}, "expected \\[0, 1\\]"),
        (Listed(torch.zeros(6, 3, 4, 4, dtype=torch.int64), LABELS), {}, "int64"),
        (Listed(torch.zeros(6, 2, 3, 4, 4), LABELS), {}, "shape"),
        (Listed([np.zeros((4, 4), np.uint8), np.zeros((5, 4), np.uint8)], [0, 1]), {}, "image 1 has shape"),
        (Listed(pictures(), [[0, 1]] * 6), {}, "label 0"),
        (Listed(pictures(), torch.zeros(6, 2)), {}, "one class an image"),
        (Listed(pictures(), [0.5] * 6), {}, "0.5"),
        (Listed(["a.png"] * 6, LABELS), {}, "str"),
        (Listed(pictures(), LABELS), {"channels": 4}, "channels is 4"),
        (Listed(torch.from_numpy(PIXELS), LABELS), {"channels": 1}, "3 channels, expected 1"),
        (Listed(torch.from_numpy(PIXELS), LABELS), {"image_size": 8}, "only PIL"),
        ([torch.zeros(3, 4, 4)], {}, "isn't \\(image, label\\)"),
    ],
)
def test_what_cannot_become_a_pool_is_refused(dataset, options, message):
    with pytest.raises(EpisodesError, match=message):
        from_dataset(dataset, **options)


def test_importing_it_imports_no_other_library():
    code = (
        "import sys, episodes.interop.datasets; "
        "print([m for m in ('learn2learn', 'torchvision', 'PIL') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
