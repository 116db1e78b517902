"""Few-shot learning by scikit-learn's verbs: fit, predict, transform, on pictures in any form."""

from metafilm.classifier.estimator import FewShotClassifier

__all__ = ["FewShotClassifier"]
