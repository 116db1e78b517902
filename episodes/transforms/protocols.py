"""What an augmentation and a style are: functions of images and of random numbers from outside."""

from typing import Protocol

from torch import Tensor


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
