"""Classifiers of scikit-learn on the features of a network that stays as it is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metafilm.config.sources import Source
from metafilm.learner import MetaFiLM, load_learner

BASE = "protonet"  # whose network it is
NOTES = {
    "logistic-regression": f"scikit-learn's (C = 1) on features of length 1, network of {BASE}",
    "nearest-centroid": f"scikit-learn's on features of length 1, network of {BASE}",
}


def classifier(name: str) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import NearestCentroid

    return LogisticRegression(C=1.0, max_iter=1000) if name == "logistic-regression" else NearestCentroid()


def scores(name: str, folder: Path, source: Source, tasks: int) -> list[float]:
    """Of each task; ``folder``: of the base's training."""
    learner = load_learner(folder / "run")
    return [score(name, learner, source, number) for number in range(tasks)]


def score(name: str, learner: MetaFiLM, source: Source, number: int) -> float:
    """Percent of the queries right, of one task."""
    task = source.sampler.batch([number])

    def features(images: torch.Tensor) -> np.ndarray:
        found = learner.embed(images[0])
        return (found / found.norm(dim=1, keepdim=True).clamp(min=1e-12)).double().numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = classifier(name).fit(features(task.support_images), task.support_labels[0].numpy())
    right = fitted.predict(features(task.query_images)) == task.query_labels[0].numpy()
    return 100 * float(right.mean())
