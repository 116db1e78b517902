"""Plain backbones, images or vectors in, features ``[B, D]`` out; FiLM is put in afterwards by
:func:`metafilm.film.insert`.
"""

from metafilm.backbones.conv4 import Conv4
from metafilm.backbones.mlp import MLP
from metafilm.backbones.resnet12 import ResNet12

__all__ = ["MLP", "Conv4", "ResNet12"]
