"""What an adaptation and a whole pass over a batch of tasks give."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from metafilm.film import FilmDict
from metafilm.learner.gate.report import Report


@dataclass
class Adaptation:
    """How T tasks were adapted.

    ``stages`` and ``films``: the names of the stages gone through and their deviations ``[T, C]`` (``{}``: δ
    = 0). ``features``: the support features at δ = 0 that the task encoder read, with a graph, where the
    auxiliary classification may use them. ``code``: the task vector c ``[T, width]`` that the encoder's
    deviations were decoded from, where there is one. ``inner_losses``: ``[T]`` for each inner step, before
    it. ``reports``: what the gate saw of each task, where one was asked.
    """

    stages: list[str]
    films: list[FilmDict]
    features: Tensor | None = None
    code: Tensor | None = None
    inner_losses: list[Tensor] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def add(self, stage: str, deviations: FilmDict) -> None:
        """One stage more."""
        self.stages.append(stage)
        self.films.append(deviations)


@dataclass
class Outcome:
    """What one pass over a batch of T tasks gives: for each stage asked for its name, its deviations ``[T,
    C]`` and the predictions, ``[T, Q, ways]`` logits or ``[T, Q, 1]`` values."""

    stages: list[str]
    predictions: list[Tensor]
    films: list[FilmDict]
    inner_losses: list[Tensor] = field(default_factory=list)
