"""Plain images of all training classes, told apart by a classifier: before the outer loop."""

from metafilm.training.plain.classifiers import CosineClassifier
from metafilm.training.plain.pretraining import Pretraining, pretrain

__all__ = ["CosineClassifier", "Pretraining", "pretrain"]
