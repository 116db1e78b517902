"""What is done to features before a head compares them, in evaluation: one by one, queries as supports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.errors import MetafilmError

STEPS = ("centre", "power", "normalise")
EPSILON = 1e-6  # keeps the slope of the root finite at 0


class FeatureTransform(nn.Module):
    """Steps on features, in the order given.

    ``centre`` takes off the mean feature of the training classes (Wang et al., "SimpleShot", 2019,
    arXiv:1911.04623, whose CL2N is centre, normalise); ``power`` takes the square root, of the size where a
    feature is below 0 (Hu et al., ICANN 2021, arXiv:2006.03806); ``normalise`` makes the length 1.

    Args:
        steps: of :data:`STEPS`, each at most once.
        features: D.

    Raises:
        MetafilmError: an unknown step, one given twice, or none.

    Attributes:
        mean: ``[D]`` of what comes before ``centre``; zeros until :func:`metafilm.evaluation.centre` has
            measured it. Kept with the weights.
    """

    mean: Tensor

    def __init__(self, steps: Iterable[str], features: int) -> None:
        super().__init__()
        self.steps: Sequence[str] = tuple(steps)
        if unknown := [step for step in self.steps if step not in STEPS]:
            raise MetafilmError(
                f"unknown feature transform {unknown[0]!r}; expected some of {', '.join(STEPS)}"
            )
        if not self.steps or len(set(self.steps)) < len(self.steps):
            raise MetafilmError(
                f"a feature transform takes each of its steps once, not {list(self.steps)}; name at least one"
            )
        self.arguments = {"steps": list(self.steps), "features": features}
        if self.centres:
            self.register_buffer("mean", torch.zeros(features))

    @property
    def centres(self) -> bool:
        """Whether it needs the training classes' mean."""
        return "centre" in self.steps

    def before_centre(self, features: Tensor) -> Tensor:
        """``[..., D]`` -> the same, what ``mean`` is the mean of."""
        return self._through(features, self.steps[: self.steps.index("centre")])

    def forward(self, features: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., D]``; each feature vector depends on itself alone."""
        return self._through(features, self.steps)

    def _through(self, features: Tensor, steps: Sequence[str]) -> Tensor:
        for step in steps:
            if step == "centre":
                features = features - self.mean
            elif step == "power":
                features = features.sign() * ((features.abs() + EPSILON).sqrt() - EPSILON**0.5)
            else:
                features = F.normalize(features, dim=-1)
        return features

    def extra_repr(self) -> str:
        return ", ".join(self.steps)
