"""What validation tasks say of a learner's probabilities, kept in the metadata of its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from metafilm.errors import CheckpointError, MetafilmError
from metafilm.storage import tensorfile

KEY = "calibration"


@dataclass(frozen=True)
class Level:
    """What tasks of one number of shots say: more examples make a learner surer, and pictures more familiar.

    Attributes:
        shots: of each class.
        temperature: what logits are divided by before they become probabilities.
        familiarity: quantiles 0 ... 1, equally spaced, of the familiarity of pictures whose class is among
            the task's (:meth:`metafilm.heads.Head.familiarity`).

    Raises:
        MetafilmError: a temperature or a number of shots that is not positive, or quantiles that do not rise.
    """

    shots: float
    temperature: float
    familiarity: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("shots", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise MetafilmError(f"{name} {value} must be a positive number")
        rising = all(a <= b for a, b in pairwise(self.familiarity))
        if len(self.familiarity) < 2 or not rising or not all(map(math.isfinite, self.familiarity)):
            raise MetafilmError("the quantiles of familiarity must be two or more rising numbers")

    def threshold(self, false_alarms: float) -> float:
        place = false_alarms * (len(self.familiarity) - 1)
        low = math.floor(place)
        below, above = self.familiarity[low], self.familiarity[min(low + 1, len(self.familiarity) - 1)]
        return below + (place - low) * (above - below)


@dataclass(frozen=True)
class Calibration:
    """Of one learner's weights.

    Between two measured numbers of shots, temperature and thresholds go with the logarithm of the number, and
    outside them the nearest is taken.

    Attributes:
        levels: one or more, of rising numbers of shots.
        weights: fingerprint of the weights it is of.
        tasks: the tasks it was measured on: data set, split, ways, shots, episodes, seed.

    Raises:
        MetafilmError: no levels, or not of rising numbers of shots.
    """

    levels: tuple[Level, ...]
    weights: str
    tasks: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shots = [level.shots for level in self.levels]
        if not shots or any(a >= b for a, b in pairwise(shots)):
            raise MetafilmError(f"a calibration at {shots} shots; give one or more rising numbers")

    def temperature(self, shots: float) -> float:
        """What logits are divided by before they become probabilities.

        Args:
            shots: of each class; the mean where classes differ.
        """
        return math.exp(self._between(shots, lambda level: math.log(level.temperature)))

    def threshold(self, false_alarms: float, shots: float) -> float:
        """The familiarity below which a picture is of none of the classes.

        Args:
            false_alarms: share of the pictures of known classes that may be taken for unknown, between 0 and
                1.
            shots: of each class; the mean where classes differ.

        Raises:
            MetafilmError: another number.
        """
        number = isinstance(false_alarms, int | float) and not isinstance(false_alarms, bool)
        if not number or not 0 < false_alarms < 1:
            raise MetafilmError(
                f"reject is {false_alarms!r}; give the share of pictures of known classes that may be taken "
                "for unknown, between 0 and 1, such as 0.05"
            )
        return self._between(shots, lambda level: level.threshold(false_alarms))

    def _between(self, shots: float, of: Callable[[Level], float]) -> float:
        after = sum(level.shots <= shots for level in self.levels)
        low, high = self.levels[max(after - 1, 0)], self.levels[min(after, len(self.levels) - 1)]
        if low is high:
            return of(low)
        share = math.log(shots / low.shots) / math.log(high.shots / low.shots)
        return of(low) + share * (of(high) - of(low))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Raises ValueError, KeyError or TypeError: no calibration."""
        found = json.loads(text)
        levels = found.get("levels", [{"shots": 1, **found}])  # older files: one for all
        return cls(
            tuple(
                Level(
                    float(level["shots"]),
                    float(level["temperature"]),
                    tuple(float(value) for value in level["familiarity"]),
                )
                for level in levels
            ),
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
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged calibration ({error}); calibrate it again") from error


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Put it into a weights file, in the place of one that is there; all else stays.

    Raises CheckpointError: no such file, or damaged.
    """
    tensors, metadata = tensorfile.read(path)
    tensorfile.write(path, tensors, {**metadata, KEY: calibration.to_json()})
