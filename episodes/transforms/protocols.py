"""What an augmentation and a style are: functions of images and of random numbers from outside."""

from typing import Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from episodes.errors import EpisodesError


class Augment(Protocol):
    """Per image: images [B, C, H, W] float32 in [0, 1], uniforms [B, num_uniforms] float64 in [0, 1) ->
    images."""

    num_uniforms: int

    def __call__(self, images: Tensor, uniforms: Tensor, /) -> Tensor: ...


class Transform(Protocol):
    """Per task: images [T, n, C, H, W] float32 in [0, 1], uniforms [T, num_uniforms] float64 in [0, 1) ->
    images."""

    num_uniforms: int

    def __call__(self, images: Tensor, uniforms: Tensor, /) -> Tensor: ...


def checked(images: Tensor, uniforms: Tensor | NDArray, columns: int) -> Tensor:
    """The uniforms as a tensor beside the images, or an EpisodesError."""
    uniforms = torch.as_tensor(uniforms, device=images.device)
    if images.dim() != 4 or uniforms.shape != (images.shape[0], columns):  # len() would fix an exported batch
        raise EpisodesError(
            f"expected images [B, C, H, W] and uniforms [B, {columns}], "
            f"got {list(images.shape)} and {list(uniforms.shape)}"
        )
    return uniforms


def checked_tasks(images: Tensor, uniforms: Tensor | NDArray, columns: int, does: str) -> Tensor:
    """Those of tasks, likewise; ``does``: who does what to the images, for the message."""
    uniforms = torch.as_tensor(uniforms, device=images.device)
    if images.dim() != 5 or uniforms.shape != (len(images), columns):
        raise EpisodesError(
            f"{does} images [T, n, C, H, W] with uniforms [T, {columns}], "
            f"got {list(images.shape)} and {list(uniforms.shape)}"
        )
    return uniforms
