"""An ablation: every arm of the questions trained and scored, one after the other, whatever interrupts it.

records.json                      a record for each arm that is done, written after each
NAME/classes-008/ARM-seed0/       the run directory of a training
NAME.svg, table.md                figure of a configuration, and tables of all
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metafilm.config import Config
from metafilm.config.messages import close_match, flag
from metafilm.config.sources import Source, evaluation_source
from metafilm.config.strict import leaves
from metafilm.errors import MetafilmError, RunError
from metafilm.evaluation import evaluate
from metafilm.laboratory.arms import QUESTIONS, Arm
from metafilm.laboratory.space import values_of, with_values
from metafilm.learner.build import load_learner
from metafilm.storage.atomic import atomic_write, finite
from metafilm.storage.environment import environment
from metafilm.storage.run import RunDirectory
from metafilm.training.outer_gradient import Diverged
from metafilm.training.run import train
from metafilm.training.tracking import Tracker

SEED = 2_000_000  # of the episodes that are scored: others than those that chose the weights


@dataclass(frozen=True)
class Base:
    """A configuration that arms change: as it was named, and what it says, with the words of the command
    line that changed that (``--iterations 500``)."""

    source: str
    config: Config
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One arm on so many training classes (None: all), with one seed."""

    base: Base
    question: str
    arm: Arm
    classes: int | None
    seed: int

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


def jobs(
    bases: Sequence[Base], questions: Sequence[str], classes: Sequence[int | None], seeds: Sequence[int]
) -> list[Job]:
    """Every arm, seed by seed and question by question.

    Raises:
        MetafilmError: an unknown question, or two configurations of one name.
        ConfigError: an arm that a configuration does not allow.
    """
    for question in questions:
        if question not in QUESTIONS:
            raise MetafilmError(f"no question {question!r}{close_match(question, QUESTIONS)}")
    names = [base.config.name for base in bases]
    if len(set(names)) < len(names):
        raise MetafilmError(f"two configurations have one name: {', '.join(names)}; give each its own")
    return [
        Job(base, question, arm, count, seed)
        for seed in seeds
        for question in questions
        for base in bases
        for count in classes
        for arm in QUESTIONS[question].arms(base.config)
        if arm.support == "own" or base.config.encoder.enabled
    ]


class Ablation:
    """An ablation's folder; a context manager that holds it for this process alone.

    Args:
        path: made if need be.
        episodes: scored for each arm, of validation classes and of training classes each.

    Raises:
        RunError: another process has the folder, or it holds something else.
    """

    def __init__(self, path: str | Path, episodes: int = 600) -> None:
        self.path, self.episodes = Path(path), episodes
        self.records_file = self.path / "records.json"
        self._holder = RunDirectory(self.path)
        self.records: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Ablation:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            others = sorted(item.name for item in self.path.iterdir() if item.name != "run.lock")
            if others and not self.records_file.is_file():
                raise RunError(
                    f"{self.path} is no ablation's folder: it has no records.json but "
                    f"{', '.join(others[:3])}; choose another --run-dir"
                )
            self._holder.lock()
        except OSError as error:
            raise RunError(
                f"{self.path}: can't write there ({error.strerror}); choose another --run-dir"
            ) from error
        self._read()
        return self

    def __exit__(self, *exception: object) -> None:
        self._holder.close()

    def _read(self) -> None:
        if not self.records_file.is_file():
            self._write()
            return
        try:
            self.records = {record["key"]: record for record in json.loads(self.records_file.read_bytes())}
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.records_file} is damaged; delete it to have the finished trainings scored anew"
            ) from error

    def _write(self) -> None:
        text = json.dumps(finite(list(self.records.values())), indent=1) + "\n"
        atomic_write(self.records_file, text.encode())

    def done(self, job: Job) -> dict[str, Any] | None:
        """The record of an arm, if it is of these settings and as many episodes."""
        found = self.records.get(job.key)
        wanted = finite(job.config.to_dict()) if found else None
        return found if found and (found["settings"], found["episodes"]) == (wanted, self.episodes) else None

    def run(
        self, wanted: Sequence[Job], data_root: str | Path | None = None, progress: bool | None = None
    ) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Train and score every arm that is not done, and give all of them with their records.

        Raises:
            EpisodesError, MetafilmError: the data are not there, too few classes, or a run directory that
                holds a run with other settings.
            KeyboardInterrupt: after a checkpoint; the same call goes on from there.
        """
        for job in wanted:
            record = self.done(job)
            if record is None:
                record = self._record(job, data_root, progress)
                self.records[job.key] = record
                self._write()
            yield job, record

    def _record(self, job: Job, data_root: str | Path | None, progress: bool | None) -> dict[str, Any]:
        begin = time.perf_counter()
        config, place = job.config, self.path / job.training
        with RunDirectory.open(place, config) as run:
            trained = run.read_results()
            failed = None
            if trained is None:
                try:
                    with Tracker(run, config) as tracker:
                        trained = train(config, run, tracker, data_root, progress=progress)
                        tracker.finish(trained)
                except Diverged as error:
                    failed = str(error)
            last = next((r for r in reversed(run.read_metrics()) if "gap" in r), {})
        measured = {} if failed else self._scores(job, place, data_root, progress)
        made = environment()
        return {
            "key": job.key,
            "config": job.base.source,
            "dataset": config.data.name,
            "classes": job.classes,
            "seed": job.seed,
            "changes": job.changes,
            "encoder_support": job.arm.support,
            "split": config.data.validation_split,
            "episodes": self.episodes,
            **measured,
            "last": {name: last.get(name) for name in last if name.startswith(("validation", "train"))}
            | {"gap": last.get("gap"), "iteration": last.get("iteration")},
            "best_iteration": (trained or {}).get("best_iteration"),
            "training_seconds": (trained or {}).get("training_seconds"),
            "wall_seconds": time.perf_counter() - begin,
            "failed": failed,
            "command": self._command(job),
            "train_command": _train_command(job, place),
            "hardware": made["hardware"],
            "commit": made.get("commit"),
            "settings": config.to_dict(),
        }

    def _scores(
        self, job: Job, place: Path, data_root: str | Path | None, progress: bool | None
    ) -> dict[str, Any]:
        """The kept weights on validation classes and on training classes, and the gap between the two."""
        config, learner = job.config, load_learner(place)
        found: dict[str, dict[str, Any]] = {}
        for split in (config.data.validation_split, config.data.train_split):
            source: Source = evaluation_source(config, split, data_root, seed=SEED)
            found[split] = evaluate(
                learner, source.sampler, self.episodes, encoder_support=job.arm.support, progress=progress
            )
            one = source.sampler.batch([0])
        new, known = found.values()
        measure = learner.head.metric
        return {
            "ways": one.ways,
            "shots": one.support_labels.shape[1] if learner.regression else one.shots,
            "measure": measure,
            measure: new[measure],
            "ci95": new["ci95"],
            f"{measure}_by_step": new[f"{measure}_by_step"],
            "stages": new["stages"],
            f"training_classes_{measure}": known[measure],
            "training_classes_ci95": known["ci95"],
            "gap": known[measure] - new[measure],
            "gap_ci95": (known["ci95"] ** 2 + new["ci95"] ** 2) ** 0.5,
            "protocol": new["protocol"],
        }

    def _command(self, job: Job) -> str:
        words = ["metafilm", "ablate", job.base.source, "--questions", job.question]
        words += [*job.base.words, "--classes", str(job.classes or 0), "--seeds", str(job.seed)]
        return shlex.join([*words, "--episodes", str(self.episodes), "--run-dir", self.path.as_posix()])


def _train_command(job: Job, place: Path) -> str:
    words = ["metafilm", "train", job.base.source]
    words += [word.replace("--iterations", flag("outer.iterations")) for word in job.base.words]
    before = {name: value for name, value, _ in leaves(job.base.config)}
    for name, value in values_of(job.config, before).items():
        if value != before[name]:
            words += [flag(name), *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join([*words, "--run-dir", place.as_posix()])


def _word(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
