"""From the scores of single episodes to the figures of a record: means, intervals, gains, domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metafilm.evaluation.intervals import interval

Row = Sequence[float]
"""One episode's scores: one per stage; with another support also the last stage's with its own, and how many
classes the two supports share."""


def summary(rows: Sequence[Row], measure: str, stages: int, gains: bool = True) -> dict[str, Any]:
    """The figures of so many episodes; ``gains``: also what each stage gains over the first.

    Gains are paired: each episode is compared with itself at the first stage, so that what makes an episode
    hard or easy cancels. A gain is better when it is larger: of ``accuracy`` points more, of ``mse`` how much
    less error.
    """
    columns = list(zip(*rows, strict=True))
    scores, own = columns[:stages], columns[stages:]
    found: dict[str, Any] = {
        measure: mean(scores[-1]),
        "ci95": interval(scores[-1]),
        f"{measure}_by_step": [mean(column) for column in scores],
        "ci95_by_step": [interval(column) for column in scores],
    }
    if gains:
        sign = -1 if measure == "mse" else 1
        gained = [[sign * (a - b) for a, b in zip(column, scores[0], strict=True)] for column in scores]
        found["gain_by_step"] = [mean(gain) for gain in gained]
        found["gain_ci95_by_step"] = [interval(gain) for gain in gained]
    if own:
        differences = [first - second for first, second in zip(own[0], scores[-1], strict=True)]
        found |= {
            f"{measure}_own_support": mean(own[0]),
            "encoder_difference": mean(differences),
            "encoder_difference_ci95": interval(differences),
            "encoder_shared_classes": mean(own[1]),
        }
    return found


def by_domain(
    rows: Sequence[Row],
    pools: Sequence[int],
    names: Sequence[str],
    measure: str,
    stages: int,
    gains: bool = True,
) -> dict[str, dict[str, Any]]:
    """A summary of the episodes of each pool of a mixture, by its name; pools without an episode are left
    out.

    Args:
        pools: the pool of each row.
        names: of the pools; one without a name goes by its number, one of several of a name gets its number
            besides.
    """
    found = {}
    for pool in sorted(set(pools)):
        name = names[pool] if pool < len(names) else str(pool)
        name = name if names.count(name) < 2 else f"{name} ({pool})"
        mine = [row for row, other in zip(rows, pools, strict=True) if other == pool]
        found[name] = {"episodes": len(mine)} | summary(mine, measure, stages, gains)
    return found


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
