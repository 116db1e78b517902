"""Plain images of all training classes, told apart by a classifier: before the outer loop, and within it."""

from metafilm.training.plain.classifiers import NormedLinear
from metafilm.training.plain.joint import PlainImages
from metafilm.training.plain.pretraining import Pretraining, pretrain

__all__ = ["NormedLinear", "PlainImages", "Pretraining", "pretrain"]
