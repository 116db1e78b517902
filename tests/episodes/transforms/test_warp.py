"""A task's warp: the same for all its images, mirrored or not, and of the task's own numbers alone."""

import pytest
import torch
from torch.nn import functional as F

from episodes.errors import EpisodesError
from episodes.transforms.affine import Affine
from episodes.transforms.bending import Bending
from episodes.transforms.styles import Styles
from episodes.transforms.warp import Warp


def test_images_of_a_task_come_from_the_same_places() -> None:
    warp = Warp()
    images = torch.rand(3, 4, 2, 12, 9)
    uniforms = torch.rand(3, warp.num_uniforms)
    found = warp(images, uniforms)
    for t in range(3):
        for i in range(4):
            places = warp.bending.places(uniforms[t : t + 1, :-1], 12, 9)
            if uniforms[t, -1] >= 0.5:
                places = places.clone()
                places[..., 0] *= -1
            alone = F.grid_sample(images[t, i][None], places, align_corners=False)[0]
            torch.testing.assert_close(found[t, i], alone)
    assert not torch.allclose(found[0], warp(images, uniforms.flip(0))[0])


def test_without_bends_it_is_as_it_was_or_its_mirror_image() -> None:
    warp = Warp(bending=Bending(Affine(0, 0, 0, 0), bend=0.0, nodes=2))
    images, uniforms = torch.rand(2, 3, 1, 8, 8), torch.rand(2, warp.num_uniforms)
    uniforms[:, -1] = torch.tensor([0.2, 0.8])
    found = warp(images, uniforms)
    torch.testing.assert_close(found[0], images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], images[1].flip(-1), atol=1e-5, rtol=0)


def test_a_style_comes_before_it_and_other_shapes_are_refused() -> None:
    style, warp = Styles(("negative", "blur")), Warp()
    images, both = torch.rand(2, 3, 1, 8, 8), Warp(style)
    uniforms = torch.rand(2, both.num_uniforms)
    first = style.num_uniforms
    expected = warp(style(images, uniforms[:, :first]), uniforms[:, first:])
    torch.testing.assert_close(both(images, uniforms), expected)
    with pytest.raises(EpisodesError, match=r"uniforms \[T, 38\], got \[2, 3, 1, 8, 8\] and \[2, 4\]"):
        warp(torch.rand(2, 3, 1, 8, 8), torch.rand(2, 4))
