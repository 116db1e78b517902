"""An ablation: every arm of the questions trained and scored, one after the other, whatever interrupts it.

records.json                      a record for each arm that is done, a line each, written after each
NAME/classes-008/ARM-seed0/       the run directory of a training
NAME.svg, table.md                figure of a configuration, and tables of all
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from episodes import Episode
from metafilm.config import Config, resume_differences
from metafilm.config.sources import Source, evaluation_source
from metafilm.errors import ConfigError, RunError
from metafilm.evaluation import evaluate
from metafilm.laboratory.faults import NUMBERS
from metafilm.laboratory.gains import scored, with_gains
from metafilm.laboratory.job import Job
from metafilm.learner.build import load_learner
from metafilm.storage.atomic import atomic_write, finite, remove_unfinished
from metafilm.storage.environment import environment
from metafilm.storage.run import RunDirectory
from metafilm.training.run import train
from metafilm.training.tracking import Tracker

SEED = 2_000_000  # of the episodes that are scored: others than those that chose the weights
OF_ENCODER = ("encoder_difference", "encoder_difference_ci95", "encoder_shared_classes")


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
            unfinished = f".{self.records_file.name}."
            others = sorted(
                item.name
                for item in self.path.iterdir()
                if item.name != "run.lock" and not item.name.startswith(unfinished)
            )
            if others and not self.records_file.is_file():
                raise RunError(
                    f"{self.path} is no ablation's folder: it has no records.json but "
                    f"{', '.join(others[:3])}; choose another --run-dir"
                )
            self._holder.lock()
            remove_unfinished(self.records_file)
        except OSError as error:
            raise RunError(
                f"{self.path}: can't write there ({error.strerror}); choose another --run-dir"
            ) from error
        try:
            self._read()
        except BaseException:
            self._holder.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._holder.close()

    def _read(self) -> None:
        if not self.records_file.is_file():
            self._write()
            return
        try:
            self.records = {
                record["key"]: _with_lists(record) for record in json.loads(self.records_file.read_bytes())
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.records_file} is damaged; write [] into it to have the finished trainings scored anew"
            ) from error

    def _write(self) -> None:
        self.records = {record["key"]: record for record in with_gains(self.records.values())}
        lines = ",\n".join(json.dumps(finite(record)) for record in self.records.values())
        atomic_write(self.records_file, f"[\n{lines}\n]\n".encode())

    def done(self, job: Job) -> dict[str, Any] | None:
        """The record of an arm, if it is of these settings and as many episodes, each with its score."""
        found = self.records.get(job.key)
        if found is None or not (found["failed"] or scored(found)):
            return None
        if found["episodes"] != self.episodes:
            return None
        try:
            before = Config.from_dict(found["settings"])
        except ConfigError:  # another version's
            return None
        return None if resume_differences(before, job.config) else found

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
            record = self.done(job) or self._record(job, data_root, progress)
            # one training may answer several questions, and be several arms of one
            known = self.records.get(job.key, {}).get("answers", {})
            answers = known | {job.question: _with_arm(known.get(job.question, []), job)}
            if record.get("answers") != answers:
                self.records[job.key] = record | {"answers": answers}
                self._write()
            yield job, self.records[job.key]

    def _record(self, job: Job, data_root: str | Path | None, progress: bool | None) -> dict[str, Any]:
        spent, begin = 0.0, time.perf_counter()
        config, place = job.config, self.path / job.training
        with RunDirectory.open(place, config) as run:
            trained = run.read_results()
            failed = None
            if trained is None:
                try:
                    with Tracker(run, config) as tracker:
                        trained = train(config, run, tracker, data_root, progress=progress)
                        tracker.finish(trained)
                except NUMBERS as error:
                    failed = str(error)
            last = next((r for r in reversed(run.read_metrics()) if "gap" in r), {})
        measured: dict[str, Any] = {}
        if trained is not None:  # its own time, of all calls that it took; from here on that of the scores
            spent, begin = trained["training_seconds"], time.perf_counter()
        if failed is None:
            try:
                measured = self._scores(job, place, data_root, progress)
            except NUMBERS as error:
                failed = str(error)
        made = (trained or {}).get("environment") or environment()
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
            "wall_seconds": spent + time.perf_counter() - begin,
            "failed": failed,
            "command": job.command(self.path, self.episodes),
            "train_command": job.train_command(self.path),
            "hardware": made["hardware"],
            "commit": made.get("commit"),
            "settings": config.to_dict(),
        }

    def _scores(
        self, job: Job, place: Path, data_root: str | Path | None, progress: bool | None
    ) -> dict[str, Any]:
        """The kept weights on validation classes and on training classes, and the gap between the two."""
        config, learner = job.config, load_learner(place)

        def on(split: str) -> tuple[dict[str, Any], list[float], Episode]:
            source: Source = evaluation_source(config, split, data_root, seed=SEED)
            each: list[float] = []
            found = evaluate(
                learner,
                source.sampler,
                self.episodes,
                encoder_support=job.arm.support,
                precision=config.evaluation.precision,
                progress=progress,
                per_task=each,
            )
            return found, [float(f"{value:.6g}") for value in each], source.sampler.batch([0])

        new, scores, one = on(config.data.validation_split)
        known, known_scores, _ = on(config.data.train_split)
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
            **{name: new[name] for name in OF_ENCODER if name in new},
            "gap": known[measure] - new[measure],
            "gap_ci95": (known["ci95"] ** 2 + new["ci95"] ** 2) ** 0.5,
            "protocol": new["protocol"],
            "precision": new["precision"],
            "scores": scores,
            "training_classes_scores": known_scores,
        }


def _with_arm(arms: Sequence[dict[str, Any]], job: Job) -> list[dict[str, Any]]:
    """The arms of a question that one training is, and this one among them, by place."""
    others = [arm for arm in arms if arm["arm"] != job.arm.name and arm["place"] != job.place]
    return sorted([*others, {"arm": job.arm.name, "place": job.place}], key=lambda arm: arm["place"])


def _with_lists(record: dict[str, Any]) -> dict[str, Any]:
    """A record, though a version wrote it that kept one arm of each question."""
    known = record.get("answers", {}).items()
    lists = {question: arms if isinstance(arms, list) else [arms] for question, arms in known}
    return record | {"answers": lists} if lists else record
