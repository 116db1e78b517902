"""How far adaptation is worth going."""

from __future__ import annotations

from collections.abc import Sequence

from metafilm.evaluation.intervals import interval


def far_enough(stages: Sequence[str], rows: Sequence[Sequence[float]], measure: str) -> str | None:
    """The first of δ = 0, the encoder's δ and the last stage than which none that follow are clearly better.

    One is clearly better than another where its gain over it, paired task by task, is above zero by its 95 %
    interval.

    Args:
        stages: their names.
        rows: of each task its score at each of them.
        measure: ``accuracy``, or ``mse``, of which less is better.

    Returns:
        ``identity``, ``encoder``; None: the last stage.
    """
    sign = -1 if measure == "mse" else 1
    last = len(stages) - 1
    ends = [at for at, stage in enumerate(stages) if stage in ("identity", "encoder") or at == last]

    def better(later: int, earlier: int) -> bool:
        gains = [sign * (row[later] - row[earlier]) for row in rows]
        return sum(gains) / len(gains) > interval(gains)

    for at in ends[:-1]:
        if not any(better(later, at) for later in ends if later > at):
            return stages[at]
    return None


def farthest(stages: Sequence[str]) -> int:
    """The place of the last stage there is; ``chosen``, after it, is an earlier one again."""
    return len(stages) - 1 - (stages[-1] == "chosen")
