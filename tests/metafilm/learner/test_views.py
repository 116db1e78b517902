"""Augmented copies of the support: a pure function of images and episode numbers."""

import pytest
import torch

import episodes
from metafilm.learner.views import augmented_views

IMAGES = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([5, 8])


def test_copies_in_order() -> None:
    found = augmented_views(IMAGES, 2, "none", INDEX)
    assert torch.equal(found, torch.cat((IMAGES, IMAGES), 1))


@pytest.mark.parametrize("name", ["shift", "affine", "crop-flip"])
def test_every_copy_is_its_own(name) -> None:
    found = augmented_views(IMAGES, 4, name, INDEX)
    assert found.shape == (2, 12, 1, 16, 16) and found.min() >= 0 and found.max() <= 1
    copies = found.unflatten(1, (4, 3))
    assert (copies - IMAGES.unsqueeze(1)).abs().amax((2, 3, 4, 5)).min() > 0
    assert (copies[:, 0] - copies[:, 1]).abs().max() > 0


def test_a_function_of_the_episode_s_number_alone() -> None:
    found = augmented_views(IMAGES, 2, "affine", INDEX)
    assert torch.equal(found, augmented_views(IMAGES, 2, "affine", INDEX))
    torch.testing.assert_close(found[1:], augmented_views(IMAGES[1:], 2, "affine", INDEX[1:]))
    assert not torch.equal(found, augmented_views(IMAGES, 2, "affine", INDEX + 1))


def test_shifted_by_whole_pixels() -> None:
    """A tenth of 16 is one pixel: the inside of every copy is the image, moved by one at the most."""
    found = augmented_views(IMAGES, 3, "shift", INDEX).unflatten(1, (3, 3))
    for task in range(2):
        for copy in range(3):
            for image in range(3):
                inside = found[task, copy, image, 0, 1:-1, 1:-1]
                whole = IMAGES[task, image, 0]
                moves = [whole[1 + y : 15 + y, 1 + x : 15 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
                assert any(torch.equal(inside, move) for move in moves)


def test_unknown_augmentation() -> None:
    with pytest.raises(episodes.EpisodesError, match="no augmentation is called 'blur'"):
        augmented_views(IMAGES, 1, "blur", INDEX)
