"""What validation tasks say of a learner's probabilities, kept in the metadata of its weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metafilm.errors import CheckpointError, MetafilmError
from metafilm.storage import tensorfile

KEY = "calibration"


@dataclass(frozen=True)
class Calibration:
    """Of one learner's weights.

    Attributes:
        temperature: what logits are divided by before they become probabilities.
        familiarity: quantiles 0 ... 1, equally spaced, of the familiarity of pictures whose class is among
            the task's (:meth:`metafilm.heads.Head.familiarity`).
        weights: fingerprint of the weights it is of.
        tasks: the tasks it was measured on: data set, split, ways, shots, episodes, seed.

    Raises:
        MetafilmError: a temperature that is not positive, or quantiles that do not rise.
    """

    temperature: float
    familiarity: tuple[float, ...]
    weights: str
    tasks: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise MetafilmError(f"temperature {self.temperature} must be a positive number")
        rising = all(a <= b for a, b in zip(self.familiarity, self.familiarity[1:], strict=False))
        if len(self.familiarity) < 2 or not rising or not all(map(math.isfinite, self.familiarity)):
            raise MetafilmError("the quantiles of familiarity must be two or more rising numbers")

    def threshold(self, false_alarms: float) -> float:
        """The familiarity below which a picture is of none of the classes.

        Args:
            false_alarms: share of the pictures of known classes that may be taken for unknown, between 0 and
                1.

        Raises:
            MetafilmError: another number.
        """
        if isinstance(false_alarms, bool) or not 0 < false_alarms < 1:
            raise MetafilmError(
                f"reject is {false_alarms!r}; give the share of pictures of known classes that may be taken "
                "for unknown, between 0 and 1, such as 0.05"
            )
        place = false_alarms * (len(self.familiarity) - 1)
        low = math.floor(place)
        below, above = self.familiarity[low], self.familiarity[min(low + 1, len(self.familiarity) - 1)]
        return below + (place - low) * (above - below)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Raises ValueError, KeyError or TypeError: no calibration."""
        found = json.loads(text)
        return cls(
            float(found["temperature"]),
            tuple(float(value) for value in found["familiarity"]),
            str(found["weights"]),
            dict(found["tasks"]),
        )


def read_calibration(path: str | Path) -> Calibration | None:
    """That of a weights file; None where it has none. Raises CheckpointError."""
    text = tensorfile.read_metadata(path).get(KEY)
    if text is None:
        return None
    try:
        return Calibration.from_json(text)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a damaged calibration ({error}); calibrate it again") from error


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Put it into a weights file, in the place of one that is there; all else stays.

    Raises CheckpointError: no such file, or damaged.
    """
    tensors, metadata = tensorfile.read(path)
    tensorfile.write(path, tensors, {**metadata, KEY: calibration.to_json()})
