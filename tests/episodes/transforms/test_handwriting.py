"""Another hand's drawing against one made pixel by pixel."""

import math

import pytest
import torch
from torch import Tensor

from episodes.errors import EpisodesError
from episodes.transforms.affine import Affine
from episodes.transforms.augment import by_name
from episodes.transforms.handwriting import Handwriting

STILL = Affine(0.0, 0.0, 0.0, 0.0)


def drawn(rows: int, columns: int) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def bent(image: Tensor, nodes: Tensor, bend: float) -> Tensor:
    """[C, H, W] with each pixel taken from where the nodes' displacements, [2, n, n], point."""
    height, width = image.shape[1:]
    count = nodes.shape[1]
    found = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            moves, total = [0.0, 0.0], 0.0
            for i in range(count):
                for j in range(count):
                    down = (y + 0.5) / height * (count - 1) - i
                    right = (x + 0.5) / width * (count - 1) - j
                    weight = math.exp(-2 * (down**2 + right**2))
                    total += weight
                    for k in range(2):
                        moves[k] += weight * bend * (2 * float(nodes[k, i, j]) - 1)
            sx, sy = x + moves[0] / total * width, y + moves[1] / total * height
            for ty in (math.floor(sy), math.floor(sy) + 1):
                for tx in (math.floor(sx), math.floor(sx) + 1):
                    if 0 <= ty < height and 0 <= tx < width:
                        found[:, y, x] += (1 - abs(sx - tx)) * (1 - abs(sy - ty)) * image[:, ty, tx]
    return found


def thickened(image: Tensor, amount: float) -> Tensor:
    """[C, H, W], as far towards the most (else the least) of each pixel's neighbours as is said."""
    height, width = image.shape[1:]
    found = image.clone()
    for c in range(len(image)):
        for y in range(height):
            for x in range(width):
                around = [
                    float(image[c, b, a]) if 0 <= b < height and 0 <= a < width else 0.0
                    for b in (y - 1, y, y + 1)
                    for a in (x - 1, x, x + 1)
                ]
                value = max(around) if amount > 0 else min(around)
                found[c, y, x] += abs(amount) * (value - image[c, y, x])
    return found


def test_pixels_come_from_where_the_nodes_point_and_strokes_change() -> None:
    hand = Handwriting(STILL, bend=0.15, nodes=3, thickness=0.8)
    images, uniforms = torch.rand(4, 2, 9, 7), drawn(4, hand.num_uniforms)
    assert hand.num_uniforms == 5 + 18 + 1
    assert (uniforms[:, -1] > 0.5).any() and (uniforms[:, -1] < 0.5).any(), "both thicker and thinner"
    found = hand(images, uniforms)
    for image, row, mine in zip(images, uniforms, found, strict=True):
        moved = bent(image, row[5:23].view(2, 3, 3), 0.15)
        expected = thickened(moved, 0.8 * (2 * float(row[-1]) - 1))
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=0)


def test_without_bends_and_thickness_it_is_its_affine_map() -> None:
    affine = Affine(30, 0.2, 0.3, 20)
    hand = Handwriting(affine, bend=0.0, thickness=0.0)
    images, uniforms = torch.rand(4, 1, 12, 12), drawn(4, hand.num_uniforms)
    torch.testing.assert_close(hand(images, uniforms), affine(images, uniforms[:, :5]), atol=1e-5, rtol=0)


def test_in_the_middle_of_every_range_it_changes_nothing() -> None:
    images, hand = torch.rand(3, 1, 28, 28), by_name("handwriting")
    torch.testing.assert_close(
        hand(images, torch.full((3, hand.num_uniforms), 0.5)), images, atol=1e-5, rtol=0
    )


def test_no_displacement_is_longer_than_said() -> None:
    hand = Handwriting(STILL, bend=0.1, nodes=4)
    uniforms = drawn(20, hand.num_uniforms).round()
    still = uniforms.clone()
    still[:, 5:-1] = 0.5
    moved = hand.bending.places(uniforms[:, :-1], 16, 24) - hand.bending.places(still[:, :-1], 16, 24)
    assert moved.shape == (20, 16, 24, 2) and 0.1 < moved.abs().max() <= 0.2 + 1e-6, "of a side that is 2"


@pytest.mark.parametrize("wrong", [{"bend": -0.1}, {"nodes": 1}, {"thickness": 1.5}])
def test_what_is_out_of_range_is_refused(wrong) -> None:
    with pytest.raises(EpisodesError, match=f"{next(iter(wrong))} {next(iter(wrong.values()))}"):
        Handwriting(**wrong)
