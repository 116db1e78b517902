"""What an ablation trains: every arm of the questions, on so many classes, with so many seeds."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metafilm.config import Config
from metafilm.config.messages import close_match, flag
from metafilm.config.strict import leaves
from metafilm.errors import MetafilmError
from metafilm.laboratory.arms import QUESTIONS, Arm
from metafilm.laboratory.space import values_of, with_values


@dataclass(frozen=True)
class Base:
    """A configuration that arms change: as it was named, and what it says, with the words of the command
    line that changed that (``--iterations 500``)."""

    source: str
    config: Config
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One arm on so many training classes (None: all), with one seed; ``place``: among those of its
    question."""

    base: Base
    question: str
    arm: Arm
    classes: int | None
    seed: int
    place: int = 0

    @property
    def config(self) -> Config:
        """Of its training, all stages of which are scored, whatever they are worth. Raises ConfigError."""
        shared = {"data.classes": self.classes, "evaluation.adapt": "always"}
        return with_values(
            self.base.config, {**self.arm.settings, **shared}, name=self.base.config.name, seed=self.seed
        )

    @property
    def changes(self) -> dict[str, Any]:
        """Settings in which the arm differs from its base."""
        own = {name: value for name, value, _ in leaves(self.base.config)}
        found = values_of(self.config, self.arm.settings)
        return {name: value for name, value in found.items() if value != own[name]}

    @property
    def training(self) -> str:
        """The run directory's place in the ablation's folder: the same for arms of one training."""
        said = ",".join(f"{name}={_word(value)}" for name, value in self.changes.items()) or "base"
        name = re.sub(r"[^\w.,=-]", "-", said)
        if name != said or len(name) > 80:  # still one folder for each
            name = f"{name[:70]}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
        classes = "all" if self.classes is None else f"{self.classes:03}"
        return f"{self.base.config.name}/classes-{classes}/{name}-seed{self.seed}"

    @property
    def key(self) -> str:
        """What the arm's record is known by."""
        return f"{self.training} {self.arm.support}"

    def command(self, folder: Path, episodes: int) -> str:
        """What makes the arm's record again."""
        words = ["metafilm", "ablate", self.base.source, "--questions", self.question]
        words += [*self.base.words, "--classes", str(self.classes or 0), "--seeds", str(self.seed)]
        return shlex.join([*words, "--episodes", str(episodes), "--run-dir", folder.as_posix()])

    def train_command(self, folder: Path) -> str:
        """What makes its training again."""
        words = ["metafilm", "train", self.base.source]
        words += [word.replace("--iterations", flag("outer.iterations")) for word in self.base.words]
        before = {name: value for name, value, _ in leaves(self.base.config)}
        for name, value in values_of(self.config, before).items():
            if value != before[name]:
                words += [flag(name), *(map(str, value) if isinstance(value, tuple) else [str(value)])]
        return shlex.join([*words, "--run-dir", (folder / self.training).as_posix()])


def jobs(
    bases: Sequence[Base], questions: Sequence[str], classes: Sequence[int | None], seeds: Sequence[int]
) -> list[Job]:
    """Every arm, seed by seed and question by question, the configuration itself among them. What asks of a
    task encoder is not asked of a configuration that has none.

    Raises:
        MetafilmError: an unknown question, two configurations of one name, or nothing is left to ask.
        ConfigError: an arm that a configuration does not allow.
    """
    for question in questions:
        if question not in QUESTIONS:
            raise MetafilmError(f"no question {question!r}{close_match(question, QUESTIONS)}")
    names = [base.config.name for base in bases]
    if len(set(names)) < len(names):
        raise MetafilmError(f"two configurations have one name: {', '.join(names)}; give each its own")
    asked = {
        (question, base.config.name)
        for question in questions
        for base in bases
        if base.config.encoder.enabled or not QUESTIONS[question].of_encoder
    }
    if not asked:
        raise MetafilmError(
            f"{', '.join(questions)}: nothing to ask of {', '.join(names)} without a task encoder; add "
            f"{flag('encoder.enabled')} True to the configuration, or ask something else"
        )
    return [
        Job(base, question, arm, count, seed, place)
        for seed in dict.fromkeys(seeds)
        for question in dict.fromkeys(questions)
        for base in bases
        if (question, base.config.name) in asked
        for count in dict.fromkeys(classes)
        for place, arm in enumerate(_arms(base.config, question))
    ]


def _arms(base: Config, question: str) -> list[Arm]:
    """Those of a question, and the configuration itself, which all are compared with, if it is none."""
    arms = QUESTIONS[question].arms(base)
    own = {name: value for name, value, _ in leaves(base)}
    if any(arm.support == "own" and all(own[n] == v for n, v in arm.settings.items()) for arm in arms):
        return arms
    return [Arm("the configuration"), *arms]


def _word(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
