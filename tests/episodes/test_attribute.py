"""Attributes of a pool's images: what fits, and what happens to them when classes are left out."""

import pytest
import torch

from episodes import Attribute, ClassPool, EpisodesError


def make_pool(attributes=()):
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    return ClassPool(images, torch.tensor([0, 2, 4, 6]), ("a", "b", "c"), attributes=attributes)


INK = Attribute(
    "ink", torch.tensor([0, 1, 2, 0, 1, 1]), ("red", "green", "blue"), torch.tensor([0, 0, 1]), ("jitter",)
)


def test_a_subset_keeps_each_image_s_value_by_name():
    pool = make_pool((INK,))
    names = {int(image): INK.value_names[v] for image, v in zip(pool.images, INK.values, strict=True)}
    for chosen in ([2, 0], ["b"], [0, 1, 2]):
        part = pool.subset(chosen)
        (ink,) = part.attributes
        assert len(ink.values) == len(part.images) and (ink.counts > 0).all()
        for image, value in zip(part.images, ink.values, strict=True):
            assert ink.value_names[value] == names[int(image)]
        assert [int(g) for g in ink.groups] == [int(n == "blue") for n in ink.value_names]
        assert ink.spoiled_by == ("jitter",)


def test_grey_pictures_keep_their_attributes_in_colour():
    assert make_pool((INK,)).with_channels(3).attributes == (INK,)


def test_turned_classes_are_refused_with_attributes():
    with pytest.raises(EpisodesError, match="need not hold for turned images"):
        make_pool((INK,)).rotated_classes()
    assert make_pool().rotated_classes().num_classes == 12


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((torch.zeros(3), ("a",)), "int64"),
        ((torch.zeros(0, dtype=torch.int64), ("a",)), "one value per image"),
        ((torch.tensor([0, 2]), ("a", "b")), "values 0 to 2, but 2 names"),
        ((torch.tensor([-1, 0]), ("a", "b")), "values -1 to 0"),
        ((torch.tensor([0, 1]), ("a", "a")), "distinct"),
        ((torch.tensor([0, 1]), ("a", "b"), torch.tensor([0])), "one per value"),
        ((torch.tensor([0, 1]), ("a", "b"), torch.tensor([0, -1])), "from 0"),
    ],
)
def test_parts_that_do_not_fit(arguments, match):
    with pytest.raises(EpisodesError, match=match):
        Attribute("ink", *arguments)


def test_a_pool_wants_a_value_for_every_image_and_each_name_once():
    with pytest.raises(EpisodesError, match="5 values for 6 images"):
        make_pool((INK.of_rows(torch.arange(5)),))
    with pytest.raises(EpisodesError, match="distinct names"):
        make_pool((INK, INK))
