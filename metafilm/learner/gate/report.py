"""What a gate saw of one task, and what it chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """``name`` as of the stages of an adaptation; over the held-out images: the mean ``gain`` over
    δ = 0 in the right class's lead (:func:`metafilm.learner.gate.gate.leads`), its standard ``error``, and
    the ``accuracy`` in percent."""

    name: str
    gain: float
    error: float
    accuracy: float


@dataclass(frozen=True)
class Report:
    """What the gate saw and chose; printable.

    Attributes:
        candidates: the least change first.
        chosen: name of the one that the task took.
        evidence: ``folds`` (each half of the support scored under deviations adapted to the other half), or
            ``views`` (unused copies of the support, where a class has one image).
        images: support images that were scored.
        margin: of the gate, in standard errors.
    """

    candidates: tuple[Candidate, ...]
    chosen: str
    evidence: str
    images: int
    margin: float

    @property
    def why(self) -> str:
        """The reason in a sentence."""
        if self.chosen == self.candidates[0].name:
            if self.evidence == "views" and self.candidates[0].accuracy == 100:
                return "every copy is named rightly without adaptation: there is nothing to mend"
            return f"nothing gains more than {self._margin} over no adaptation"
        taken = next(one for one in self.candidates if one.name == self.chosen)
        gain = f"{taken.gain:+.3f} ± {taken.error:.3f}"
        return f"{self.chosen} gains most over no adaptation, {gain}, more than {self._margin}"

    @property
    def _margin(self) -> str:
        return "one standard error" if self.margin == 1 else f"{self.margin:g} standard errors"

    def __str__(self) -> str:
        how = "the other half's steps" if self.evidence == "folds" else "copies that no step has seen"
        lines = [
            f"{self.images} support images held out ({how}); lead: how far the right class's logit stands "
            "out, less that without adaptation, ± its standard error"
        ]
        width = max(len(one.name) for one in self.candidates)
        for one in self.candidates:
            mark = "*" if one.name == self.chosen else " "
            gain = f"lead {one.gain:+.3f} ± {one.error:.3f}"
            lines.append(f"{mark} {one.name:{width}}  {one.accuracy:5.1f} % right, {gain}")
        return "\n".join([*lines, self.why])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, of which ``from_dict`` makes an equal report."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """Raises KeyError or TypeError: not what ``to_dict`` gave."""
        candidates = tuple(Candidate(**one) for one in values["candidates"])
        return cls(**{**values, "candidates": candidates})
