"""One run's folder: what it holds, who may write to it, and when a run may be resumed.

    config.yaml              all settings
    chunks.json              how many tasks go together, chosen as the run began
    metrics.jsonl            one JSON object a line, each with its `iteration`
    model.safetensors        the best weights, with what is needed to rebuild the learner
    checkpoint.pt            everything a resumed run needs
    checkpoint.previous.pt   the one before, for when that is damaged
    results.json             what the run reported

Every file but the metrics is written beside its place and renamed into it, so a kill at any moment leaves
the old file or the new one. Metrics are appended and cut back to the checkpoint when a run resumes.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from metafilm.config.config import Config, resume_differences
from metafilm.errors import RunError
from metafilm.storage import checkpoint
from metafilm.storage.atomic import atomic_write, finite, naming, remove_unfinished, require_room

try:
    import fcntl
except ImportError:  # no such lock on this platform: the user keeps two runs apart
    fcntl = None


class RunDirectory:
    """A run's folder at `path`. Made by `open` for writing; constructing one only names the files.

    Use as a context manager, or call `close`, to let go of the lock; the system does so when the process
    dies.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.model_file = self.path / "model.safetensors"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.previous_file = self.path / "checkpoint.previous.pt"
        self.chunks_file = self.path / "chunks.json"
        self.results_file = self.path / "results.json"
        self.resumed = False
        self._lock: int | None = None
        self._metrics: Any = None
        self._newest_is_damaged = False

    @classmethod
    def open(cls, path: str | Path, config: Config) -> "RunDirectory":
        """Lock the folder, made if need be, for a run with `config`; `resumed` tells whether one was there.

        Settings that don't change the weights (marked so among the settings) may differ from the earlier
        run's. Raises RunError when another process holds the folder, when the folder holds something else, or
        when its run has other settings, each of which is named.
        """
        run = cls(path)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run._require_ours()
            run.lock()
        except OSError as error:
            raise RunError(
                f"{path}: can't write there ({error.strerror}); choose another --run-dir"
            ) from error
        try:
            run._match(config)
            atomic_write(run.config_file, config.to_yaml().encode())
        except BaseException:
            run.close()
            raise
        return run

    def require_usable(self, config: Config) -> None:
        """Raise RunError where `open` would, before any work, and change nothing."""
        try:
            if self.path.exists():
                self._require_ours()
            folders = (self.path, *self.path.parents)
            require_room(next((folder for folder in folders if folder.exists()), "."))
        except OSError as error:
            raise RunError(
                f"{self.path}: can't write there ({error.strerror}); choose another --run-dir"
            ) from error
        self._require_same(config)

    def _require_ours(self) -> None:
        """Refuse a folder with other things in it, before anything is written there."""
        found = {item.name for item in self.path.iterdir()}
        others = sorted(name for name in found - {LOCK_NAME} if not name.startswith(".config.yaml."))
        if others and self.config_file.name not in found:
            raise RunError(
                f"{self.path} is no run directory: it has no config.yaml but {', '.join(others[:3])}; "
                "choose another --run-dir"
            )

    def _match(self, config: Config) -> None:
        for file in (self.config_file, *self.made):
            remove_unfinished(file)
        self.resumed = self._require_same(config)

    def _require_same(self, config: Config) -> bool:
        """Whether the folder holds a run. Raises RunError when its settings are other ones, ConfigError when
        there is none and none is begun with these.

        Other settings alone are no run: one that was refused before its first step is begun with better ones.
        """
        if not self.config_file.is_file():
            config.require_beginnable()
            return False
        found = Config.from_yaml(self.config_file)
        differences = resume_differences(found, config)
        if not any(file.is_file() for file in self.made):
            if self.config_file.read_text() != found.to_yaml():
                raise RunError(
                    f"{self.config_file} is a configuration, not one that a run has left, and would be "
                    "overwritten; choose another --run-dir"
                )
            if differences:
                config.require_beginnable()
                return False
        if differences:
            listed = "\n  ".join(differences)
            raise RunError(
                f"{self.path} holds a run with other settings:\n  {listed}\n"
                "choose another --run-dir, or delete this one to start anew"
            )
        return True

    @property
    def made(self) -> tuple[Path, ...]:
        """The files of a training that took a step."""
        checkpoints = (self.checkpoint_file, self.previous_file)
        return (self.chunks_file, self.metrics_file, self.model_file, self.results_file, *checkpoints)

    def lock(self) -> None:
        """Take the folder for this process. Raises RunError naming the process that has it."""
        if fcntl is None or self._lock is not None:
            return
        handle = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise RunError(
                f"{self.path} is in use by process {owner}; wait for it, or choose another folder"
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._lock = handle

    def close(self) -> None:
        """Close the metrics and let go of the lock. Safe to call twice."""
        metrics, self._metrics = self._metrics, None
        lock, self._lock = self._lock, None
        try:
            if metrics is not None:
                with naming(self.metrics_file):
                    metrics.close()
        finally:
            if lock is not None:
                os.close(lock)

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def config(self) -> Config:
        """The settings of the run. Raises RunError when the folder holds none."""
        if not self.config_file.is_file():
            raise RunError(f"{self.path} is no run directory: it has no config.yaml")
        return Config.from_yaml(self.config_file)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line; `record` needs `iteration`, the optimiser steps taken. NaN and Inf become null."""
        if "iteration" not in record:
            raise RunError(f"a metrics record needs an iteration, has {', '.join(record)}")
        if self._metrics is None:
            self._metrics = self.metrics_file.open("a", encoding="utf-8", buffering=1)
        with naming(self.metrics_file):
            self._metrics.write(json.dumps(finite(record), allow_nan=False) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All records in order, without a last line that a kill tore; a bad line before it is left out with a
        warning that names it."""
        if not self.metrics_file.is_file():
            return []
        records = []
        *lines, _ = self.metrics_file.read_bytes().split(b"\n")  # after the last newline: nothing, or torn
        for number, line in enumerate(lines, 1):
            record = _record(line)
            if record is not None:
                records.append(record)
            elif line.strip():
                warnings.warn(
                    f"{self.metrics_file}, line {number}: no metrics of an iteration, left out: "
                    f"{line[:40].decode(errors='replace')}",
                    stacklevel=1,
                )
        return records

    def truncate_metrics(self, iteration: int | None) -> None:
        """Keep the records up to and including `iteration` (None: keep none), as a resumed run needs it."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        kept = [] if iteration is None else [r for r in self.read_metrics() if r["iteration"] <= iteration]
        text = "".join(json.dumps(finite(record), allow_nan=False) + "\n" for record in kept)
        atomic_write(self.metrics_file, text.encode())

    def write_chunks(self, tasks: int, queries: int) -> None:
        """Keep how many tasks go together: other chunks add up in another order, to other last bits."""
        atomic_write(self.chunks_file, (json.dumps({"tasks": tasks, "queries": queries}) + "\n").encode())

    def read_chunks(self) -> tuple[int, int] | None:
        """What `write_chunks` kept, or None. Raises RunError if it is damaged."""
        if not self.chunks_file.is_file():
            return None
        try:
            found = json.loads(self.chunks_file.read_bytes())
            tasks, queries = found["tasks"], found["queries"]
            if not all(type(value) is int and value > 0 for value in (tasks, queries)):
                raise ValueError(found)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f'{self.chunks_file} is damaged, expected something like {{"tasks": 4, "queries": 1}}; '
                "delete it to have them chosen anew"
            ) from error
        return tasks, queries

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace checkpoint.pt with `state`: tensors, numbers, strings and containers of these only.

        The one that was there becomes checkpoint.previous.pt. Log the metrics of an iteration before its
        checkpoint: what a resumed run keeps is cut to it.
        """
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())
        checkpoint.save(self.checkpoint_file, state, None if self._newest_is_damaged else self.previous_file)
        self._newest_is_damaged = False

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last whole checkpoint's state on the CPU, or None without one.

        Where checkpoint.pt is damaged that is checkpoint.previous.pt, with a warning. Raises RunError if no
        checkpoint is whole.
        """
        newest, previous = self.checkpoint_file, self.previous_file
        if not newest.is_file() and not previous.is_file():
            return None
        try:
            if not newest.is_file():  # a kill between two renames, where files can't be linked
                raise RunError(f"{newest} is missing")
            return checkpoint.load(newest)
        except RunError as error:
            first = error
        if not previous.is_file():
            raise RunError(f"{first}; delete it to start the run anew") from first
        try:
            state = checkpoint.load(previous)
        except RunError as second:
            raise RunError(f"{first}, and {second}; delete both to start the run anew") from first
        self._newest_is_damaged = True
        warnings.warn(
            f"{first}; going on from {previous} (iteration {state['iteration']}). Delete both to start the "
            "run anew",
            stacklevel=1,
        )
        return state

    def remove_outcome(self) -> None:
        """Remove weights and results, which a run that begins anew would leave as if they were its own."""
        for file in (self.model_file, self.results_file):
            file.unlink(missing_ok=True)

    def write_results(self, results: Any) -> None:
        """Replace results.json. NaN and Inf become null."""
        atomic_write(self.results_file, (json.dumps(finite(results), indent=2) + "\n").encode())

    def read_results(self) -> Any:
        """What `write_results` wrote, or None."""
        return json.loads(self.results_file.read_text()) if self.results_file.is_file() else None


LOCK_NAME = "run.lock"


def _record(line: bytes) -> dict[str, Any] | None:
    """One record of the metrics, None where the line is none."""
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and type(record.get("iteration")) is int
    return record if whole else None


def _refuse(word: str) -> NoReturn:
    """NaN and Infinity, which are no JSON."""
    raise ValueError(word)
