"""Plain backbones, images or vectors in, features ``[B, D]`` out; FiLM is put in afterwards by
:func:`metafilm.film.insert`.
"""

from metafilm.backbones.conv4 import Conv4
from metafilm.backbones.mlp import MLP
from metafilm.backbones.pooling import POOLINGS, flattens
from metafilm.backbones.pretrained import LIBRARIES, LIBRARY_WEIGHTS, LITE0, Pretrained
from metafilm.backbones.resnet12 import ResNet12

BACKBONES = {"conv4": Conv4, "resnet12": ResNet12, "mlp": MLP}
"""The backbones by name: command line, configuration and docs read this mapping and no other."""

__all__ = [
    "BACKBONES",
    "LIBRARIES",
    "LIBRARY_WEIGHTS",
    "LITE0",
    "MLP",
    "POOLINGS",
    "Conv4",
    "Pretrained",
    "ResNet12",
    "flattens",
]
