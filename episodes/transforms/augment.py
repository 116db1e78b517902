"""Batched image augmentation, driven by random numbers that the caller gives.

Every augmentation is called `augment(images, uniforms)`: images [B, C, H, W] float32 in [0, 1], uniforms
[B, U] in [0, 1) (a tensor or an array) with U = `augment.num_uniforms`; it returns images of the same shape.
Row b of the result depends on row b of the arguments alone. Nothing here draws random numbers of its own, so
whoever owns the numbers owns the reproducibility.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from episodes.errors import EpisodesError
from episodes.transforms.affine import Affine
from episodes.transforms.handwriting import Handwriting
from episodes.transforms.pixels import empty, rotate90
from episodes.transforms.protocols import Augment, checked

__all__ = [
    "BY_NAME",
    "LUMA",
    "Affine",
    "ColorJitter",
    "Compose",
    "CropFlip",
    "Handwriting",
    "Identity",
    "Shift",
    "by_name",
    "rotate90",
]

# Rec. 601 luma, what PIL's "L" and torchvision's `rgb_to_grayscale` use.
LUMA = (0.299, 0.587, 0.114)


class Identity:
    """Returns the images as they are."""

    num_uniforms = 0

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """images [B, C, H, W], uniforms [B, 0] -> the same images."""
        return images


class Shift:
    """Moves each image by a whole number of pixels in each direction; what comes in is black.

    pixels: the farthest move; None takes a tenth of the shorter side (2 at 28x28, 8 at 84x84).
    """

    num_uniforms = 2

    def __init__(self, pixels: int | None = None) -> None:
        self.pixels = _check_padding(pixels, "Shift(pixels)")

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """images [B, C, H, W], uniforms [B, 2] (down, right) -> [B, C, H, W]."""
        uniforms = checked(images, uniforms, self.num_uniforms)
        return _crops(images, uniforms, _margin(self.pixels, images), "constant")


class CropFlip:
    """A random crop of the padded image, and a mirror image (left for right) half of the time.

    padding: pixels added on each side before cropping to the old size; None takes a tenth of the shorter side
    (8 at 84x84, as MetaOptNet does). mode: what fills them, "constant" (black) or "reflect".
    """

    num_uniforms = 3

    def __init__(self, padding: int | None = None, mode: str = "constant") -> None:
        self.padding = _check_padding(padding, "CropFlip(padding)")
        if mode not in ("constant", "reflect"):
            raise EpisodesError(f'CropFlip(mode) is {mode!r}: choose "constant" or "reflect"')
        self.mode = mode

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """images [B, C, H, W], uniforms [B, 3] (down, right, mirror) -> [B, C, H, W]."""
        uniforms = checked(images, uniforms, self.num_uniforms)
        return _crops(images, uniforms, _margin(self.padding, images), self.mode)


class ColorJitter:
    """Brightness, contrast and saturation, each scaled by a factor in [1 - strength, 1 + strength].

    In this order, as torchvision's ColorJitter defines them, but clamped to [0, 1] once at the end: the three
    together are then one affine map of a pixel's channels, one matrix product for the batch. Grey images have
    no saturation.
    """

    num_uniforms = 3

    def __init__(self, strength: float = 0.4) -> None:
        if not 0 <= strength <= 1:
            raise EpisodesError(f"ColorJitter(strength) is {strength}: choose a number from 0 to 1")
        self.strength = strength

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """images [B, 1 or 3, H, W], uniforms [B, 3] (brightness, contrast, saturation) -> like images."""
        uniforms = checked(images, uniforms, self.num_uniforms)
        batch, channels = images.shape[:2]
        if channels not in (1, 3):
            raise EpisodesError(
                f"ColorJitter got images with {channels} channels: it knows grey (1) and RGB (3)"
            )
        factors = (1 + self.strength * (2 * uniforms - 1)).to(images.dtype)
        brightness, contrast, saturation = factors[:, :, None, None].unbind(1)  # each [B, 1, 1]
        luma = images.new_tensor(LUMA if channels == 3 else (1.0,)).expand(
            channels, -1
        )  # each row makes grey
        flat = images.reshape(batch, channels, -1)
        mean_grey = luma @ flat.mean(dim=2, keepdim=True) * brightness  # [B, C, 1]
        # Saturation blends with the grey image, which leaves the (grey) offset of the contrast as it is.
        matrix = torch.eye(channels, dtype=images.dtype, device=images.device) * saturation + luma * (
            1 - saturation
        )
        jittered = torch.baddbmm(mean_grey * (1 - contrast), matrix * (contrast * brightness), flat)
        return jittered.clamp_(0, 1).reshape(images.shape)


class Compose:
    """Several augmentations, one after another, each with its own columns of the uniforms."""

    def __init__(self, *augments: Augment) -> None:
        self.augments = augments
        self.num_uniforms = sum(augment.num_uniforms for augment in augments)

    def __call__(self, images: Tensor, uniforms: Tensor | NDArray) -> Tensor:
        """images [B, C, H, W], uniforms [B, U] with U the sum over the parts -> [B, C, H, W]."""
        uniforms = checked(images, uniforms, self.num_uniforms)
        first = 0
        for augment in self.augments:
            last = first + augment.num_uniforms
            images = augment(images, uniforms[:, first:last])
            first = last
        return images


BY_NAME = {
    "none": lambda: None,
    "shift": Shift,
    "jitter": ColorJitter,
    "crop-flip": CropFlip,
    "crop-flip-jitter": lambda: Compose(CropFlip(), ColorJitter()),
    "affine": Affine,
    "handwriting": Handwriting,
}


def by_name(name: str) -> Augment | None:
    """The augmentation of that name with its default strength; None for "none".

    Names: "none", "shift", "jitter", "crop-flip", "crop-flip-jitter", "affine", "handwriting".
    Raises EpisodesError for any other.
    """
    if name not in BY_NAME:
        raise EpisodesError(f"no augmentation is called {name!r}: choose one of {', '.join(BY_NAME)}")
    return BY_NAME[name]()


def _check_padding(pixels: int | None, name: str) -> int | None:
    if pixels is not None and pixels < 0:
        raise EpisodesError(f"{name} is {pixels}: choose 0 or more, or None for a tenth of the side")
    return pixels


def _margin(pixels: int | None, images: Tensor) -> int:
    return min(images.shape[-2:]) // 10 if pixels is None else pixels


def _crops(images: Tensor, uniforms: Tensor, margin: int, mode: str) -> Tensor:
    """Crops of the images padded by `margin`, mirrored where a third column of the uniforms says so."""
    height, width = images.shape[-2:]
    if mode == "reflect" and margin >= min(height, width):
        raise EpisodesError(f"reflecting {margin} pixels needs images larger than that, got {height}x{width}")
    offsets = 2 * margin + 1
    top, left = (offsets - 1 - (uniforms[:, i] * offsets).long().clamp(0, offsets - 1) for i in (0, 1))
    mirrored = uniforms[:, 2] >= 0.5 if uniforms.shape[1] > 2 else torch.zeros_like(top, dtype=torch.bool)
    plain = images.dtype == torch.float32 and not (images.requires_grad or torch.compiler.is_compiling())
    if images.device.type == "cpu" and plain:
        return _crops_one_by_one(images, top.tolist(), left.tolist(), mirrored.tolist(), margin, mode)
    padded = F.pad(images, [margin] * 4, mode=mode)
    # All crops exist as one strided view; picking one an image is a single copy without an index per pixel.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, offsets, offsets, H, W]
    cropped = windows[torch.arange(images.shape[0], device=images.device), :, top, left]
    return torch.where(mirrored[:, None, None, None], cropped.flip(-1), cropped)


def _crops_one_by_one(
    images: Tensor, top: list[int], left: list[int], mirrored: list[bool], margin: int, mode: str
) -> Tensor:
    """The same on the CPU: one padded image at a time stays in the cache."""
    channels, height, width = images.shape[1:]
    cropped = empty(tuple(images.shape))
    canvas = np.zeros((channels, height + 2 * margin, width + 2 * margin), np.float32)
    inner = canvas[:, margin : margin + height, margin : margin + width]
    around = [(0, 0), (margin, margin), (margin, margin)]
    for image, out, y, x, mirror in zip(images.numpy(), cropped, top, left, mirrored, strict=True):
        if mode == "reflect":
            canvas = np.pad(image, around, "reflect")
        else:
            inner[...] = image
        window = canvas[:, y : y + height, x : x + width]
        out[...] = window[..., ::-1] if mirror else window
    return torch.from_numpy(cropped)
