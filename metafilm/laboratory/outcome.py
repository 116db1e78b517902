"""What came of a sweep: a table of its trials, the best one's settings, how much each setting mattered."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metafilm.laboratory.drawing import bars, write_svg
from metafilm.laboratory.space import with_values
from metafilm.laboratory.study import StudyFolder
from metafilm.storage.atomic import atomic_write, finite

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SHOWN = 10  # trials of the table
FEWEST = 8  # finished trials from which it is worth asking which setting mattered
SHUFFLES = 20  # of the trials' scores, to see what chance would call important
STATES = {"COMPLETE": "done", "PRUNED": "given up", "FAIL": "failed", "RUNNING": "under way"}


def conclude(folder: StudyFolder, command: str) -> list[str]:
    """Write trials.json, best.yaml and importance.svg as far as the trials go.

    Args:
        command: that made the sweep, for the record.

    Returns:
        The lines of the table, and where to go from it.
    """
    ranked = _ranked(folder)
    written = {"command": command, **folder.plan.to_dict(), "measure": folder.plan.measure}
    written |= {"split": folder.plan.config.data.validation_split, "trials": [_record(t) for t in ranked]}
    atomic_write(folder.trials_file, (json.dumps(finite(written), indent=2) + "\n").encode())
    lines = _table(folder, ranked)
    done = [trial for trial in ranked if trial.state.name == "COMPLETE"]
    if not done:
        return [*lines, "no trial is done yet"]
    best = with_values(folder.plan.config, done[0].params)
    atomic_write(folder.best_file, best.to_yaml().encode())
    importances, by_chance = importance(folder)
    if importances:
        label = "share of the differences in validation; the line: what chance gives in nineteen of twenty"
        write_svg(bars(importances, label, by_chance), folder.importance_file)
        told = [name for name, share in importances.items() if share > by_chance[name]]
        lines += [f"how much each setting mattered: {folder.importance_file}"]
        lines += [f"more than chance: {', '.join(told) or 'none of them'}"]
    else:
        folder.importance_file.unlink(missing_ok=True)
        lines += [f"too few trials that differ ({len(done)} done) to say which setting mattered"]
    lines += [f"settings of the best, to train it anew or longer: {folder.best_file}"]
    lines += [f"score it on test classes, once: metafilm eval {folder.trial_path(done[0].number)}"]
    return lines


def importance(folder: StudyFolder) -> tuple[dict[str, float], dict[str, float]]:
    """Setting -> share of the differences between finished trials that it explains, alone and with others
    (functional ANOVA of a random forest: Hutter et al., ICML 2014), and the 95th percentile of what it would
    be of the same trials with their scores shuffled: a forest finds something in any dozen of trials. Both
    empty where they are too few or all alike."""
    from optuna.trial import TrialState

    done = folder.trials(TrialState.COMPLETE)
    if len(done) < FEWEST or len({trial.value for trial in done}) < 2:
        return {}, {}
    scores = np.array([trial.value for trial in done], float)
    random = np.random.default_rng(0)
    try:
        found = _shares(folder, done, scores.tolist())
        shuffled = [_shares(folder, done, random.permutation(scores).tolist()) for _ in range(SHUFFLES)]
    except (ValueError, RuntimeError):  # trees that all fail to tell the few trials apart
        return {}, {}
    by_chance = {name: float(np.quantile([one[name] for one in shuffled], 0.95)) for name in found}
    return found, by_chance


def _shares(folder: StudyFolder, trials: list[FrozenTrial], scores: Sequence[float]) -> dict[str, float]:
    """Of each setting that differs between trials that have these scores."""
    import optuna

    study = optuna.create_study(direction=folder.plan.direction)  # type: ignore[arg-type]
    for trial, score in zip(trials, scores, strict=True):
        study.add_trial(
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=score)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trials too few for what it likes
        judge = optuna.importance.FanovaImportanceEvaluator(n_trees=16, seed=0)
        return optuna.importance.get_param_importances(study, evaluator=judge)


def _ranked(folder: StudyFolder) -> list[FrozenTrial]:
    """Best first: those done, those given up by what they had reached, the rest."""
    order = list(STATES)
    sign = -1 if folder.plan.direction == "maximize" else 1

    def key(trial: FrozenTrial) -> tuple[int, float, int]:
        state = trial.state.name
        return (
            order.index(state) if state in order else len(order),
            sign * (_best(trial) or 0.0),
            trial.number,
        )

    return sorted(folder.trials(), key=key)


def _best(trial: FrozenTrial) -> float | None:
    """The best validation of a trial that is over and has not failed. Optuna's value of one given up is its
    last."""
    if trial.state.name not in ("COMPLETE", "PRUNED"):
        return None
    return trial.user_attrs.get("best_validation", trial.value)


def _record(trial: FrozenTrial) -> dict[str, Any]:
    validations = {str(step): value for step, value in sorted(trial.intermediate_values.items())}
    return {
        "trial": trial.number,
        "state": STATES.get(trial.state.name, trial.state.name.lower()),
        "validation": _best(trial),
        "settings": trial.params,
        "validations": validations,
        **trial.user_attrs,
    }


def _table(folder: StudyFolder, ranked: list[FrozenTrial]) -> list[str]:
    counts = {word: sum(trial.state.name == state for trial in ranked) for state, word in STATES.items()}
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    plan = folder.plan
    head = f"sweep of {plan.config.name}, {plan.sampler}: {said or 'no trials'}"
    names = {name: name.rpartition(".")[2] for name in plan.space}
    if len(set(names.values())) < len(names):
        names = {name: name for name in names}
    rows = [["trial", plan.measure, "training", "at", "state", *names.values()]]
    for trial in ranked[:SHOWN]:
        facts = trial.user_attrs
        best = _best(trial)
        score = "–" if best is None else f"{best:.4g}"
        if best is not None and facts.get("ci95") is not None:
            score += f" ± {facts['ci95']:.2g}"
        known, at = facts.get("training_classes"), facts.get("best_iteration", "–")
        rows.append(
            [
                str(trial.number),
                score,
                "–" if known is None else f"{known:.4g}",
                str(at),
                STATES.get(trial.state.name, "waits"),
                *(_short(trial.params[name]) for name in names),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  " + "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [head, *lines]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
