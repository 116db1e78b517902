"""Filters of pictures: photographic ones and drawings, each alike for all images of a task.

Some are for training, others for choosing settings, and others are kept for the test.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from episodes.transforms.augment import LUMA

PARAMETERS = 2  # numbers that a filter takes
_CELLS = 14  # a pixelated picture has this many cells each way
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
_BAYER = ((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5))
_PERMUTATIONS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))

# A filter takes the images of k tasks [k, n, C, H, W] and two numbers in [0, 1) a task [k, 2].
Filter = Callable[[Tensor, Tensor], Tensor]


def _wide(values: Tensor) -> Tensor:
    """[k] -> [k, 1, 1, 1, 1]"""
    return values[:, None, None, None, None]


def _mixed(images: Tensor, matrices: Tensor) -> Tensor:
    """RGB images with their channels mixed by a matrix [k, 3, 3] a task, clamped to [0, 1]; grey ones as
    they are."""
    if images.shape[2] != 3:
        return images
    mixed = matrices.to(images.dtype)[:, None] @ images.flatten(3)
    return mixed.clamp_(0, 1).view(images.shape)


def _grey(images: Tensor) -> Tensor:
    """[k, n, C, H, W] -> luma [k, n, 1, H, W]; for other than three channels their mean."""
    if images.shape[2] == 1:
        return images
    if images.shape[2] != 3:
        return images.mean(2, keepdim=True)
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(2, keepdim=True)


def _slope(images: Tensor) -> Tensor:
    """The Sobel gradient's length, edges repeated outwards: same shape; 1 for a step from black to white."""
    padded = F.pad(images.flatten(0, 1), [1, 1, 1, 1], mode="replicate")
    tall = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    broad = padded[..., :, :-2] + 2 * padded[..., :, 1:-1] + padded[..., :, 2:]
    right, down = tall[..., 2:] - tall[..., :-2], broad[..., 2:, :] - broad[..., :-2, :]
    return torch.hypot(right, down).mul_(0.25).view(images.shape)


def identity(images: Tensor, numbers: Tensor) -> Tensor:
    """As they are."""
    return images


def negative(images: Tensor, numbers: Tensor) -> Tensor:
    """Black for white."""
    return 1 - images


def channel_permutation(images: Tensor, numbers: Tensor) -> Tensor:
    """The three channels in one of the five other orders."""
    orders = torch.tensor(_PERMUTATIONS, device=images.device)
    chosen = orders[(numbers[:, 0] * len(orders)).long().clamp_max(len(orders) - 1)]
    return _mixed(images, F.one_hot(chosen, 3))


def grey(images: Tensor, numbers: Tensor) -> Tensor:
    """Luma in every channel."""
    return _grey(images).expand_as(images)


def blur(images: Tensor, numbers: Tensor) -> Tensor:
    """A Gaussian whose standard deviation is 2.5 to 4.5 % of the shorter side (0.7 to 1.3 pixels of 28)."""
    height, width = images.shape[-2:]
    sigma = (0.025 + 0.02 * numbers[:, 0]) * min(height, width)

    def along_rows(pictures: Tensor) -> Tensor:
        side = pictures.shape[-1]
        place = torch.arange(side, device=images.device, dtype=sigma.dtype)
        weight = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2)[:, None, None])
        # Denormal tails would make the product twenty times slower.
        weight = torch.where(weight < 1e-6, 0, weight)
        # Each pixel's weights sum to one, so that nothing darkens at the border.
        weight = (weight / weight.sum(-1, keepdim=True)).mT.to(images.dtype)  # [k, side, side]
        return (pictures.flatten(1, -2) @ weight).view(pictures.shape)

    return along_rows(along_rows(images).mT.contiguous()).mT


def pencil(images: Tensor, numbers: Tensor) -> Tensor:
    """Dark outlines on white paper."""
    strength = _wide(2 + 2 * numbers[:, 0]).to(images.dtype)
    return (1 - strength * _slope(_grey(images))).clamp_(0, 1).expand_as(images)


def low_contrast(images: Tensor, numbers: Tensor) -> Tensor:
    """A quarter to two fifths of the contrast, about a middle grey of 0.3 to 0.7."""
    contrast, middle = 0.25 + 0.15 * numbers[:, 0], 0.3 + 0.4 * numbers[:, 1]
    return _wide(contrast).to(images.dtype) * images + _wide((1 - contrast) * middle).to(images.dtype)


def hue_rotation(images: Tensor, numbers: Tensor) -> Tensor:
    """Colours turned by 60 to 300 degrees about the grey axis (in YIQ), luma kept where nothing is
    clamped."""
    angle = math.pi / 3 + 4 * math.pi / 3 * numbers[:, 0].double()
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], -1).view(-1, 3, 3)
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64, device=images.device)
    return _mixed(images, torch.linalg.inv(to_yiq) @ turn @ to_yiq)


def gamma(images: Tensor, numbers: Tensor) -> Tensor:
    """Shadows opened or sunk: to a power of 0.35 to 0.55, or of 2 to 3."""
    lighter = 0.35 + 0.2 * numbers[:, 1]
    power = torch.where(numbers[:, 0] < 0.5, lighter, 2 + numbers[:, 1])
    return images ** _wide(power).to(images.dtype)


def sharpen(images: Tensor, numbers: Tensor) -> Tensor:
    """Away from a blurred copy of itself, by 1.5 to 2.5 times the difference."""
    amount = _wide(1.5 + numbers[:, 1]).to(images.dtype)
    return (images + amount * (images - blur(images, numbers))).clamp_(0, 1)


def vignette(images: Tensor, numbers: Tensor) -> Tensor:
    """Darkened with the square of the distance from the centre, in the corners to 5 to 25 %."""
    height, width = images.shape[-2:]
    across, down = (
        torch.linspace(-1, 1, side, dtype=numbers.dtype, device=images.device) for side in (width, height)
    )
    square = (down[:, None] ** 2 + across**2) / 2  # 1 in the corners, for one pixel too
    return images * (1 - _wide(0.75 + 0.2 * numbers[:, 0]) * square).to(images.dtype)


def halftone(images: Tensor, numbers: Tensor) -> Tensor:
    """Each channel in dots that are on or off: ordered dithering (Bayer), in a lattice that starts
    anywhere."""
    height, width = images.shape[-2:]
    lattice = torch.tensor(_BAYER, dtype=images.dtype, device=images.device).add(0.5).div(16)
    start = (numbers * 4).long().clamp_max(3)  # [k, 2]
    down = (torch.arange(height, device=images.device) + start[:, :1]) % 4
    across = (torch.arange(width, device=images.device) + start[:, 1:]) % 4
    thresholds = lattice[down[:, :, None], across[:, None, :]]  # [k, height, width]
    return (images > thresholds[:, None, None]).to(images.dtype)


def solarise(images: Tensor, numbers: Tensor) -> Tensor:
    """What is lighter than a threshold of 0.4 to 0.6 becomes its negative."""
    return torch.where(images > _wide(0.4 + 0.2 * numbers[:, 0]).to(images.dtype), 1 - images, images)


def posterise(images: Tensor, numbers: Tensor) -> Tensor:
    """Two or three levels a channel."""
    levels = _wide(2 + (numbers[:, 0] >= 0.5)).to(images.dtype)
    return (images * levels).floor_().clamp_max_(levels - 1) / (levels - 1)


def emboss(images: Tensor, numbers: Tensor) -> Tensor:
    """Relief lit from the upper left, on middle grey."""
    shade = _grey(images)
    padded = F.pad(shade.flatten(0, 1), [1, 1, 1, 1], mode="replicate").unflatten(0, shade.shape[:2])
    relief = padded[..., 2:, 2:] - padded[..., :-2, :-2]
    return (0.5 + _wide(0.5 + 0.5 * numbers[:, 0]).to(images.dtype) * relief).clamp_(0, 1).expand_as(images)


def sepia(images: Tensor, numbers: Tensor) -> Tensor:
    """An old brown photograph."""
    return _mixed(images, torch.tensor(_SEPIA, device=images.device).expand(len(images), 3, 3))


def pixelate(images: Tensor, numbers: Tensor) -> Tensor:
    """Fourteen squares each way, each of its mean colour."""
    flat = images.flatten(0, 1)
    height, width = images.shape[-2:]
    cells = F.adaptive_avg_pool2d(flat, (min(_CELLS, height), min(_CELLS, width)))
    return F.interpolate(cells, size=(height, width), mode="nearest-exact").view(images.shape)


def edges(images: Tensor, numbers: Tensor) -> Tensor:
    """Bright outlines on black, channel by channel."""
    return (_wide(1.5 + numbers[:, 0]).to(images.dtype) * _slope(images)).clamp_(0, 1)


def tint(images: Tensor, numbers: Tensor) -> Tensor:
    """Light of one colour: one channel stays, the others keep 10 to 40 %."""
    kept = F.one_hot((numbers[:, 0] * 3).long().clamp_max(2), 3).to(numbers.dtype)
    share = (0.1 + 0.3 * numbers[:, 1])[:, None]
    return _mixed(images, torch.diag_embed(kept + (1 - kept) * share))


KNOWN: dict[str, Filter] = {
    "identity": identity,
    "negative": negative,
    "channel-permutation": channel_permutation,
    "grey": grey,
    "blur": blur,
    "pencil": pencil,
    "low-contrast": low_contrast,
    "hue-rotation": hue_rotation,
}
VALIDATION: dict[str, Filter] = {
    "gamma": gamma,
    "sharpen": sharpen,
    "vignette": vignette,
    "halftone": halftone,
}
UNSEEN: dict[str, Filter] = {
    "solarise": solarise,
    "posterise": posterise,
    "emboss": emboss,
    "sepia": sepia,
    "pixelate": pixelate,
    "edges": edges,
    "tint": tint,
}
FILTERS = KNOWN | VALIDATION | UNSEEN
