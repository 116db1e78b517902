"""From features to predictions: heads that are fitted to a task's support features."""

from metafilm.heads.base import Head, State, prototypes, task_cross_entropy
from metafilm.heads.blend import BlendHead
from metafilm.heads.descriptors import DescriptorsHead
from metafilm.heads.linear import LinearHead, RegressionHead
from metafilm.heads.logistic import LogisticHead
from metafilm.heads.prototype import CosineClassifier, CosineHead, PrototypeHead
from metafilm.heads.reconstruction import ReconstructionHead
from metafilm.heads.registry import HEADS, build
from metafilm.heads.ridge import RidgeHead
from metafilm.heads.transform import STEPS as TRANSFORMS
from metafilm.heads.transform import FeatureTransform

__all__ = [
    "HEADS",
    "TRANSFORMS",
    "BlendHead",
    "CosineClassifier",
    "CosineHead",
    "DescriptorsHead",
    "FeatureTransform",
    "Head",
    "LinearHead",
    "LogisticHead",
    "PrototypeHead",
    "ReconstructionHead",
    "RegressionHead",
    "RidgeHead",
    "State",
    "build",
    "prototypes",
    "task_cross_entropy",
]
