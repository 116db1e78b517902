"""What a gate may choose from, and when it lets itself be moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metafilm.errors import MetafilmError


class Move(NamedTuple):
    """One candidate: δ = 0, δ⁰ of the task encoder, or so many steps of ``factor`` times their size."""

    name: str
    factor: float = 0.0
    steps: int = 0


IDENTITY, ENCODER = Move("identity"), Move("encoder")


@dataclass(frozen=True)
class Gate:
    """Settings of the choice between no adaptation, the task encoder's, and 1 ... K inner steps.

    Trying step sizes, none among them, on held-out support images is after P>M>F (Hu et al., CVPR 2022,
    arXiv:2204.07305). Here the images are held out of the steps too (:mod:`metafilm.learner.gate.folds`),
    and a candidate must gain over no adaptation by a margin.

    Attributes:
        steps: numbers of steps that are candidates, those below K; K always is.
        factors: on the step sizes. A factor above 1 gets the fewer steps, K divided by it.
        margin: in standard errors of the paired difference: what a candidate's mean lead
            (:func:`leads`) must gain over no adaptation.
        views: copies of each image that are scored where a class has one image only.

    Raises:
        MetafilmError: no positive steps or factors, a negative margin, or no views.
    """

    steps: tuple[int, ...] = (1, 2, 5, 10)
    factors: tuple[float, ...] = (1.0,)
    margin: float = 1.0
    views: int = 4

    def __post_init__(self) -> None:
        if any(step < 1 for step in self.steps):
            raise MetafilmError(f"the gate's steps {self.steps} must be at least 1; no step always is one")
        if not self.factors or any(not factor > 0 for factor in self.factors):
            raise MetafilmError(f"the gate's factors {self.factors} must be one or more positive numbers")
        if not self.margin >= 0 or self.views < 1:
            raise MetafilmError(
                f"the gate's margin {self.margin} must be at least 0, its views {self.views} at least 1"
            )

    def moves(self, steps: int, encoder: bool) -> list[Move]:
        """The candidates of a learner that takes up to ``steps`` steps, the least change first."""
        found = [
            Move(f"step {count}" if factor == 1 else f"step {count} x {factor:g}", factor, count)
            for factor in self.factors
            for count in self._counts(int(steps / max(factor, 1)))
        ]
        found.sort(key=lambda move: move.factor * move.steps)
        return [IDENTITY, *([ENCODER] if encoder else []), *found]

    def _counts(self, most: int) -> list[int]:
        return sorted({count for count in self.steps if count < most} | ({most} if most else set()))

    def decide(self, scores: Tensor) -> int:
        """Which candidate one task takes.

        Args:
            scores: ``[candidates, n]``, the lead of each of n held-out images, the least change first.

        Returns:
            The candidate with the largest mean gain over the first, of those that gain more than ``margin``
            standard errors of their mean difference; of equal ones the least change. One image, or no gain,
            moves nothing.
        """
        now, most = 0, 0.0
        for number in range(1, len(scores)):
            gain, error = paired(scores[number] - scores[0])
            if gain > most and gain > self.margin * error:
                now, most = number, gain
        return now

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them, of which ``from_dict`` makes an equal gate."""
        return asdict(self) | {"steps": list(self.steps), "factors": list(self.factors)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Gate:
        lists: dict[str, Any] = {name: tuple(values[name]) for name in ("steps", "factors")}
        return cls(**{**values, **lists})


def leads(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the right class's logit lies above the mean of all, in the spread of that candidate's logits.

    Unlike a likelihood it does not change with their scale, which steps raise whether they sort better or
    not; unlike accuracy it tells a narrow miss from a wide one.

    Args:
        logits: ``[..., n, ways]``.
        labels: ``[..., n]``.

    Returns:
        ``[..., n]``; the spread is the root mean square over n and ways of what is left beside the means.
    """
    above = logits - logits.mean(-1, keepdim=True)
    spread = above.square().mean((-2, -1), keepdim=True).sqrt()
    own = above.gather(-1, labels.unsqueeze(-1))
    return (own / spread.clamp(min=torch.finfo(logits.dtype).tiny)).squeeze(-1)


def paired(differences: Tensor) -> tuple[float, float]:
    """Mean and standard error of n paired differences; the error of a single one is infinite."""
    mean = float(differences.double().mean())
    if len(differences) < 2:
        return mean, torch.inf
    return mean, float(differences.double().std() / len(differences) ** 0.5)


def require_classes(learner: Any) -> None:
    """Raises MetafilmError for a learner of functions, which no gate can judge."""
    if learner.regression:
        raise MetafilmError(
            "a gate compares how likely the right classes are, and this learner's labels are real values; "
            "leave it out (inner.gate False)"
        )
