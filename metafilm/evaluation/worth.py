"""How far adaptation is worth going."""

from __future__ import annotations

from collections.abc import Sequence

from metafilm.evaluation.intervals import interval

SHORTER = ("identity", "encoder")


def far_enough(stages: Sequence[str], rows: Sequence[Sequence[float]], measure: str) -> str | None:
    """The first stage than which the last is not clearly better.

    The last is clearly better than another where its gain over it, paired task by task, is above zero by its
    95 % interval.

    Args:
        stages: their names.
        rows: of each task its score at each of them.
        measure: ``accuracy``, or ``mse``, of which less is better.

    Returns:
        ``identity``, ``encoder``; None: the last is clearly better than both.
    """
    sign = -1 if measure == "mse" else 1
    for stage in SHORTER:
        if stage in stages[:-1]:
            at = stages.index(stage)
            gains = [sign * (row[len(stages) - 1] - row[at]) for row in rows]
            if sum(gains) / len(gains) <= interval(gains):
                return stage
    return None
