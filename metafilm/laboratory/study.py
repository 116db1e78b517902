"""A sweep's folder: what is searched, its study in SQLite, and which trial is whose.

    sweep.json          what is searched, and the settings that it starts from
    study.db            Optuna's study: every trial's settings, validations, state and score
    trials/0007/        the run directory of trial 7
    trials.json         all trials, best first
    best.yaml           the best one's settings
    importance.svg      how much each setting mattered

Any number of processes may work in one folder. Who asks for a trial does so alone (asking.lock); who trains
one holds its run directory's lock. A trial that is under way in the study while nobody holds its directory
was left by a process that has died: the next that asks takes it up, and its run goes on from its checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metafilm.config import Config, resume_differences
from metafilm.errors import ConfigError, MetafilmError, RunError
from metafilm.heads import HEADS
from metafilm.laboratory.space import Choice, Range, Space, values_of, with_values, written_space
from metafilm.storage.atomic import atomic_write, finite, remove_unfinished, require_room
from metafilm.storage.run import RunDirectory
from metafilm.storage.turn import turn

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "none")
NEEDED = "metafilm sweep needs Optuna and matplotlib"
SECONDS = 60  # that a process waits for another's writing


@dataclass(frozen=True)
class Plan:
    """What a sweep does: searched settings, who proposes them, who gives up on a trial early.

    ``startup``: trials before sampler and pruner begin to judge by the earlier ones.
    """

    config: Config
    space: Space
    sampler: str = "tpe"
    pruner: str = "median"
    startup: int = 5

    @property
    def measure(self) -> str:
        """What is scored: ``accuracy`` in percent, which is to rise, or ``mse``, which is to fall."""
        return HEADS[self.config.head.name].metric

    @property
    def direction(self) -> str:
        """Optuna's word for it."""
        return "minimize" if self.measure == "mse" else "maximize"

    def to_dict(self) -> dict[str, Any]:
        """For sweep.json."""
        return {
            "search": {name: str(wanted) for name, wanted in self.space.items()},
            "sampler": self.sampler,
            "pruner": self.pruner,
            "startup": self.startup,
            "config": self.config.to_dict(),
        }


@dataclass(frozen=True)
class Claimed:
    """A trial that this process has taken: its settings, and its open run directory, whose lock it holds."""

    number: int
    id: int
    config: Config
    run: RunDirectory


class StudyFolder:
    """A sweep's folder, opened by :meth:`open`."""

    def __init__(self, path: str | Path, plan: Plan) -> None:
        self.path, self.plan = Path(path), plan
        self.plan_file = self.path / "sweep.json"
        self.trials_file = self.path / "trials.json"
        self.best_file = self.path / "best.yaml"
        self.importance_file = self.path / "importance.svg"
        self.storage: Any = None
        self._study: Study | None = None

    @classmethod
    def open(cls, path: str | Path, plan: Plan) -> StudyFolder:
        """Make the folder and its study, or go on with those that are there.

        Raises:
            RunError: the folder holds something else, or a sweep of something else.
            MetafilmError: Optuna or matplotlib are not installed.
        """
        require_optuna()
        folder = cls(path, plan)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            require_room(folder.path)
            with turn(folder.path / "asking.lock"):
                folder._match()
                folder._begin()
        except OSError as error:
            raise RunError(
                f"{path}: can't write there ({error.strerror}); choose another --run-dir"
            ) from error
        return folder

    def _match(self) -> None:
        remove_unfinished(self.plan_file)
        others = sorted(item.name for item in self.path.iterdir() if item.name != "asking.lock")
        if not self.plan_file.is_file():
            if others:
                raise RunError(
                    f"{self.path} is no sweep's folder: it has no sweep.json but {', '.join(others[:3])}; "
                    "choose another --run-dir"
                )
            atomic_write(self.plan_file, (json.dumps(self.plan.to_dict(), indent=2) + "\n").encode())
            return
        try:
            there = json.loads(self.plan_file.read_bytes())
            before = Config.from_dict(there.pop("config"), source=str(self.plan_file))
            searched = written_space(there["search"])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunError(f"{self.plan_file} is damaged; choose another --run-dir") from error
        wanted = self.plan.to_dict()
        same = {"search": searched == self.plan.space}
        differences = [
            f"--{name} is {wanted[name]}, was {there.get(name)}"
            for name in ("search", "sampler", "pruner", "startup")
            if not same.get(name, wanted[name] == there.get(name))
        ] + resume_differences(before, self.plan.config)
        if differences:
            listed = "\n  ".join(differences)
            raise RunError(
                f"{self.path} holds a sweep with other settings:\n  {listed}\n"
                "choose another --run-dir, or delete this one to start anew"
            )

    def _begin(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.storage = optuna.storages.RDBStorage(
            f"sqlite:///{self.path.resolve() / 'study.db'}",
            engine_kwargs={"connect_args": {"timeout": SECONDS}},
        )
        self._study = optuna.create_study(
            storage=self.storage,
            study_name="sweep",
            direction=self.plan.direction,  # type: ignore[arg-type]
            pruner=self._pruner(),
            load_if_exists=True,
        )
        self._ask_for_the_configuration()

    def _ask_for_the_configuration(self) -> None:
        """The configuration as it stands, as far as the search holds its values, is the first trial: have it
        wait in line, unless it has waited, or been killed while its other settings were drawn."""
        own = values_of(self.plan.config, self.plan.space)
        known = {name: value for name, value in own.items() if self.plan.space[name].holds(value)}
        asked = [
            t for t in self.study.get_trials(deepcopy=False) if t.system_attrs.get("fixed_params") == known
        ]
        if not any(t.state.name != "FAIL" or set(t.params) == set(self.plan.space) for t in asked):
            self.study.enqueue_trial(known)

    @property
    def study(self) -> Study:
        """Optuna's."""
        assert self._study is not None, "made by open"
        return self._study

    def claim(self, trials: int) -> Claimed | None:
        """A trial to train, its run directory open: one that a dead process left, else a new one while there
        are fewer than ``trials``; None: there is nothing left to take up."""
        from optuna.trial import TrialState

        with turn(self.path / "asking.lock"):
            for left in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if set(left.params) != set(self.plan.space):  # killed while its settings were drawn
                    self.study.tell(left.number, state=TrialState.FAIL)
                    self._ask_for_the_configuration()
                elif in_use(self.trial_path(left.number)):
                    continue
                # else of a dead process, or of one that has finished it since the study was read
                elif self.storage.get_trial(left._trial_id).state is TrialState.RUNNING and (
                    claimed := self._opened(left)
                ):
                    return claimed
            while (begun := len(self.trials())) < trials:
                self.study.sampler = self._sampler(begun)
                number = self.study.ask(distributions(self.plan.space)).number
                asked = next(t for t in self.study.get_trials(deepcopy=False) if t.number == number)
                if claimed := self._opened(asked):
                    return claimed
            return None

    def _opened(self, trial: FrozenTrial) -> Claimed | None:
        """The trial with its run directory open; None, and the trial has failed: its settings are possible
        each, but not all together, or its directory holds something else."""
        name = f"{self.plan.config.name}-trial-{trial.number:04}"
        try:
            config = with_values(self.plan.config, trial.params, name=name)
            run = RunDirectory.open(self.trial_path(trial.number), config)
        except (ConfigError, RunError) as error:
            if isinstance(error.__cause__, OSError):  # of the disk, not of the trial
                raise
            self.finish(trial._trial_id, trial.number, "FAIL", reason=str(error))
            return None
        return Claimed(trial.number, trial._trial_id, config, run)

    def trials(self, *states: Any) -> list[FrozenTrial]:
        """Trials whose settings are drawn, of these states or of any."""
        found = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if set(trial.params) == set(self.plan.space)]

    def trial_path(self, number: int) -> Path:
        """The run directory of a trial."""
        return self.path / "trials" / f"{number:04}"

    def _sampler(self, begun: int) -> Any:
        """Anew for each trial, seeded by its number: another process, or this one after a kill, then proposes
        what this one would have."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = (self.plan.config.seed * 1_000_003 + begun) % 2**32
        if self.plan.sampler == "random":
            return RandomSampler(seed)
        return TPESampler(n_startup_trials=self.plan.startup, seed=seed)

    def _pruner(self) -> Any:
        from optuna.pruners import MedianPruner, NopPruner

        if self.plan.pruner == "none":
            return NopPruner()
        # the first quarter of a training tells little of its end
        warmup = self.plan.config.outer.iterations // 4
        return MedianPruner(n_startup_trials=self.plan.startup, n_warmup_steps=warmup)

    def report(self, trial: Claimed, step: int, value: float) -> bool:
        """Note a validation; whether the trial is to be given up, which at its end it is not any more."""
        self.storage.set_trial_intermediate_value(trial.id, step, value)
        if step >= trial.config.outer.iterations:
            return False
        return bool(self.study.pruner.prune(self.study, self.storage.get_trial(trial.id)))

    def finish(self, id: int, number: int, state: str, value: float | None = None, **facts: Any) -> None:
        """A trial's end: ``COMPLETE`` with its score, ``PRUNED`` or ``FAIL``, and facts to keep beside it."""
        from optuna.trial import TrialState

        for name, fact in facts.items():
            self.storage.set_trial_user_attr(id, name, finite(fact))
        self.study.tell(number, value, TrialState[state])


def space_of(path: str | Path) -> Space | None:
    """What the sweep of a folder searches; None: it has no sweep, or one that :meth:`StudyFolder.open` calls
    damaged."""
    try:
        return written_space(json.loads((Path(path) / "sweep.json").read_bytes())["search"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def in_use(path: Path) -> bool:
    """Whether another process holds this run directory."""
    if not path.is_dir():
        return False
    run = RunDirectory(path)
    try:
        run.lock()
    except RunError:
        return True
    run.close()
    return False


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def one(wanted: Range | Choice) -> BaseDistribution:
        if isinstance(wanted, Choice):
            return CategoricalDistribution(wanted.values)
        if isinstance(wanted.low, int) and isinstance(wanted.high, int):
            return IntDistribution(wanted.low, wanted.high, log=wanted.log)
        return FloatDistribution(wanted.low, wanted.high, log=wanted.log)

    return {name: one(wanted) for name, wanted in space.items()}


def require_optuna(needed: Sequence[str] = ("optuna", "matplotlib")) -> None:
    """Raise MetafilmError unless the packages of the extra ``sweep`` are there."""
    from importlib.util import find_spec

    if missing := [name for name in needed if find_spec(name) is None]:
        raise MetafilmError(
            f'{NEEDED}, and {" and ".join(missing)} not installed; pip install "metafilm[sweep]"'
        )
