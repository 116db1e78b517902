"""Each batched augmentation against a naive one, image by image and, where it is legible, pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from episodes.errors import EpisodesError
from episodes.transforms.augment import (
    BY_NAME,
    LUMA,
    Affine,
    ColorJitter,
    Compose,
    CropFlip,
    Identity,
    Shift,
    by_name,
    rotate90,
)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(7, 3, 10, 12, generator=torch.Generator().manual_seed(0))


def draws(rows: int, columns: int, seed: int = 1) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """The image [C, H, W] moved, black coming in."""
    result = torch.zeros_like(image)
    height, width = image.shape[1:]
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[:, y, x] = image[:, y - down, x - right]
    return result


def test_shift_moves_each_image_by_its_own_whole_pixels(images):
    uniforms = draws(7, 2)
    expected = [
        moved(image, math.floor(u[0] * 7) - 3, math.floor(u[1] * 7) - 3)
        for image, u in zip(images, uniforms.tolist(), strict=True)
    ]
    assert torch.equal(Shift(3)(images, uniforms), torch.stack(expected))


def test_shift_reaches_both_ends_and_no_farther(images):
    lowest, highest = torch.zeros(7, 2), torch.full((7, 2), 1 - 2.0**-53, dtype=torch.float64)
    assert torch.equal(Shift(2)(images, lowest)[0], moved(images[0], -2, -2))
    assert torch.equal(Shift(2)(images, highest)[0], moved(images[0], 2, 2))
    # Rounded to float32 the highest number is 1.0, which must not wrap round to the other end.
    assert torch.equal(Shift(2)(images, highest.float())[0], moved(images[0], 2, 2))


def test_the_default_margin_is_a_tenth_of_the_shorter_side():
    image = torch.rand(1, 1, 28, 40)
    assert torch.equal(Shift()(image, torch.zeros(1, 2))[0], moved(image[0], -2, -2))


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_crop_flip_is_pad_slice_and_mirror(images, mode):
    uniforms = draws(7, 3)
    expected = []
    for image, u in zip(images.numpy(), uniforms.tolist(), strict=True):
        padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode=mode)
        top, left = (8 - math.floor(v * 9) for v in u[:2])
        crop = padded[:, top : top + 10, left : left + 12]
        expected.append(crop[:, :, ::-1] if u[2] >= 0.5 else crop)
    assert np.array_equal(CropFlip(4, mode)(images, uniforms).numpy(), np.stack(expected))
    assert {u >= 0.5 for u in uniforms[:, 2].tolist()} == {True, False}


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_is_brightness_then_contrast_then_saturation(images, channels):
    images, uniforms = images[:, :channels], draws(7, 3)
    weights = torch.tensor(LUMA if channels == 3 else (1.0,))[:, None, None]
    expected = []
    for image, u in zip(images, uniforms.tolist(), strict=True):
        brightness, contrast, saturation = (1 + 0.4 * (2 * v - 1) for v in u)
        image = image * brightness
        image = contrast * image + (1 - contrast) * (image * weights).sum(0).mean()
        grey = (image * weights).sum(0, keepdim=True)
        expected.append((saturation * image + (1 - saturation) * grey).clamp(0, 1))
    torch.testing.assert_close(ColorJitter(0.4)(images, uniforms), torch.stack(expected))


def test_color_jitter_of_strength_zero_changes_nothing(images):
    torch.testing.assert_close(ColorJitter(0.0)(images, draws(7, 3)), images)


def test_color_jitter_agrees_with_torchvision_where_nothing_is_clamped(images):
    from torchvision.transforms import functional as reference

    images = 0.4 + 0.2 * images
    result = ColorJitter(0.2)(images, draws(7, 3))
    for image, u, got in zip(images, draws(7, 3).tolist(), result, strict=True):
        brightness, contrast, saturation = (1 + 0.2 * (2 * v - 1) for v in u)
        image = reference.adjust_contrast(reference.adjust_brightness(image, brightness), contrast)
        # torchvision's luma is (0.2989, 0.587, 0.114)
        torch.testing.assert_close(got, reference.adjust_saturation(image, saturation), atol=1e-3, rtol=0)


def test_compose_gives_each_part_its_own_columns(images):
    uniforms = draws(7, 5)
    both = Compose(CropFlip(2), Identity(), Shift(1))
    assert both.num_uniforms == 5
    assert torch.equal(
        both(images, uniforms), Shift(1)(CropFlip(2)(images, uniforms[:, :3]), uniforms[:, 3:])
    )


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "none"])
def test_a_row_depends_on_its_own_row_alone_and_the_input_stays(images, name):
    augment = by_name(name)
    assert augment is not None
    uniforms, before = draws(7, augment.num_uniforms), images.clone()
    together = augment(images, uniforms)
    alone = [augment(images[b : b + 1], uniforms[b : b + 1].numpy()) for b in range(7)]
    assert together.shape == images.shape and together.dtype == torch.float32
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)
    assert torch.equal(images, before)
    assert not torch.equal(together, images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_rotate90_is_rot90_image_by_image(dtype):
    images = (torch.rand(9, 2, 5, 5) * 255).to(dtype)
    turns = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 5])
    expected = [torch.rot90(image, int(k), (1, 2)) for image, k in zip(images, turns, strict=True)]
    assert torch.equal(rotate90(images, turns), torch.stack(expected))
    assert torch.equal(rotate90(images, turns.numpy()), torch.stack(expected))


def test_errors_say_what_was_expected(images):
    assert by_name("none") is None
    with pytest.raises(EpisodesError, match="crop-flip-jitter"):
        by_name("cropflip")
    with pytest.raises(EpisodesError, match=r"uniforms \[B, 2\].*\[7, 3\]"):
        Shift(1)(images, draws(7, 3))
    with pytest.raises(EpisodesError, match="0 or more"):
        CropFlip(-1)
    with pytest.raises(EpisodesError, match="mode"):
        CropFlip(1, "wrap")
    with pytest.raises(EpisodesError, match="larger than that"):
        CropFlip(10, "reflect")(images, draws(7, 3))
    with pytest.raises(EpisodesError, match="2 channels"):
        ColorJitter()(images[:, :2], draws(7, 3))
    with pytest.raises(EpisodesError, match="strength"):
        ColorJitter(1.5)
    with pytest.raises(EpisodesError, match="shear"):
        Affine(shear=90)
    with pytest.raises(EpisodesError, match="scale"):
        Affine(scale=1.0)
    with pytest.raises(EpisodesError, match="square"):
        rotate90(images, torch.zeros(7))
    with pytest.raises(EpisodesError, match="quarter turns"):
        rotate90(images[..., :10], torch.zeros(6))
