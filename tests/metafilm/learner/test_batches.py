"""What steps are taken on: copies are a pure function of images and episode numbers, parts take turns."""

import pytest
import torch

import episodes
from metafilm.learner.batches import alike, augmented_views, balanced_part

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


def test_each_image_has_its_turn() -> None:
    labels = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1, 0]])
    turns = [balanced_part(labels, 2, 2, step) for step in range(4)]
    for task in range(2):
        for turn in turns:
            assert labels[task, turn[task]].sum() == 2 and len(turn[task]) == 4
        assert sorted([*turns[0][task].tolist(), *turns[1][task].tolist()]) == list(range(8))
        assert turns[2][task].tolist() == turns[0][task].tolist()
    # five images two at a time: the first comes again while the last is new
    found = [balanced_part(torch.zeros(1, 5).long(), 1, 2, step)[0].tolist() for step in range(5)]
    assert found == [[0, 1], [2, 3], [0, 4], [1, 2], [3, 4]]
    # a smaller class gives all it has; where all rows are taken, there is no part
    assert balanced_part(torch.tensor([[0, 1, 1, 1]]), 2, 2, 0).tolist() == [[0, 1, 2]]
    assert balanced_part(labels, 2, 4, 0) is None
    assert balanced_part(torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]), 2, 1, 0).shape == (2, 2)


def test_tasks_of_which_a_step_takes_equally_many_rows() -> None:
    labels = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0]])
    assert alike(labels, 2, 1) == alike(labels, 2, 5) == [[0, 1, 2]]
    assert alike(labels, 2, 2) == [[0, 2], [1]]
    assert alike(labels, 2, 3) == [[0], [1], [2]]
