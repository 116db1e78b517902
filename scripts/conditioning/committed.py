"""The committed records of the systems: made of runs, joined over seeds, found again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metafilm.errors import MetafilmError
from metafilm.evaluation.intervals import interval
from scripts.records import put as into

OWN = {"seed", "value", "ci95", "parameters", "training_seconds"}
"""Numbers of a run for which a record has its own way; of all others it has the mean."""


def record(
    system: str,
    arm: str,
    setting: Mapping[str, Any],
    metric: str,
    runs: Sequence[Mapping[str, Any]],
    command: str,
    over: str,
) -> dict[str, Any]:
    """One committed figure of one or several seeds.

    Args:
        runs: for each seed `seed`, `value`, `ci95` (over its test examples), `parameters`,
            `training_seconds`, `hardware`, `commit`, `scored` (its scoring's seconds, hardware and commit,
            where they are known), and whatever else is to stand beside the value.
        over: what the interval of one run is over.

    Returns:
        The mean, with the interval over seeds from two seeds on and that of its run for one.
    """
    values = [run["value"] for run in runs]
    several = len(runs) > 1
    seconds = [round(run["training_seconds"]) for run in runs]
    numbers = [k for k, v in runs[0].items() if k not in OWN and type(v) in (int, float)]
    beside = {k: sum(run[k] for run in runs) / len(runs) for k in numbers}
    return {
        "system": system,
        "arm": arm,
        "setting": dict(setting),
        "metric": metric,
        "value": rounded(sum(values) / len(values)),
        "ci95": rounded(interval(values) if several else runs[0]["ci95"]),
        "ci95_over": "seeds" if several else over,
        "seeds": [run["seed"] for run in runs],
        "by_seed": values,
        **beside,
        "parameters": runs[0]["parameters"],
        "training_seconds": round(sum(seconds) / len(runs)),
        **({"training_seconds_by_seed": seconds} if several else {}),
        **{k: together([run[k] for run in runs]) for k in ("hardware", "commit")},
        **({"scored": [run["scored"] for run in runs]} if all(run.get("scored") for run in runs) else {}),
        "protocol": "inductive",
        "command": command,
    }


def rounded(value: float) -> float:
    """To three decimals, or to three digits where those would be fewer."""
    return round(value, 3) if abs(value) >= 1 else float(f"{value:.3g}")


def put(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records to a file; of those of the same system, arm, setting and metric, one of the same seeds
    gives way and one of others is joined (a seed trained elsewhere needs no run here).

    Raises:
        MetafilmError: one is there of some of the new one's seeds and of others that it lacks.
    """

    def key(one: Mapping[str, Any]) -> str:
        return json.dumps([one[name] for name in ("system", "arm", "setting", "metric")], sort_keys=True)

    there = json.loads(path.read_text()) if path.is_file() else []
    before = {key(one): one for one in there}
    new = []
    for one in records:
        old = before.get(key(one), {"seeds": []})
        lost = set(old["seeds"]) - set(one["seeds"])
        if lost and len(lost) < len(old["seeds"]):
            raise MetafilmError(
                f"{path} has arm {one['arm']} of the seeds {sorted(lost)} too, whose runs are not here; "
                "bring or train them, or take that record out"
            )
        new.append(joined(old, one) if lost else one)
    into(path, new, key, ordered=False)


def not_joined(path: Path, runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The runs without those that a record of the file has together with seeds whose runs are not here."""

    def what(arm: str, settings: Mapping[str, Any]) -> str:
        return json.dumps([arm, {k: v for k, v in settings.items() if k != "seed"}], sort_keys=True)

    here: dict[str, set[int]] = {}
    for run in runs:
        here.setdefault(what(run["arm"], run["settings"]), set()).add(run["settings"]["seed"])
    counted: dict[tuple[str, str, int], float] = {}
    for one in json.loads(path.read_text()) if path.is_file() else []:
        trained = what(one["arm"], one["setting"])
        if set(one["seeds"]) - here.get(trained, set()):
            for seed, value in zip(one["seeds"], one["by_seed"], strict=True):
                counted[trained, one["metric"], seed] = value

    def is_counted(run: Mapping[str, Any]) -> bool:
        trained, seed = what(run["arm"], run["settings"]), run["settings"]["seed"]
        scores = run["scores"].get("test", {}).items()
        return any(counted.get((trained, metric, seed)) == score["value"] for metric, score in scores)

    return [run for run in runs if not is_counted(run)]


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two records of the same figure and of different seeds, as :func:`record` makes one of all of them."""
    runs = sorted([*runs_of(first), *runs_of(second)], key=lambda run: run["seed"])
    command = for_seeds(second["command"], second["seeds"], [run["seed"] for run in runs])
    what = (second[name] for name in ("system", "arm", "setting", "metric"))
    made = record(*what, runs, command, "")
    return {**{name: value for name, value in second.items() if name != "scored"}, **made}


def runs_of(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What :func:`record` took; numbers beside the values are their means over the seeds."""
    seeds = one["seeds"]
    seconds = one.get("training_seconds_by_seed", [one["training_seconds"]])
    scored = one.get("scored", [None] * len(seeds))
    return [
        {**one, "seed": seed, "value": value, "training_seconds": of_seed, "scored": by}
        for seed, value, of_seed, by in zip(seeds, one["by_seed"], seconds, scored, strict=True)
    ]


def together(said: Sequence[str]) -> str:
    """Each of them once, one after another."""
    found = ""
    for one in said:
        if f"; {one};" not in f"; {found};":
            found = f"{found}; {one}" if found else one
    return found


def for_seeds(command: str, seeds: Sequence[int], wanted: Sequence[int]) -> str:
    """The command of a record of these seeds, for those that are wanted."""
    if len(seeds) == 1:
        command = command.replace(f"--seed {seeds[0]}", "--seed $seed")
    else:
        command = command.removeprefix(f"for seed in {' '.join(map(str, seeds))}; do ").removesuffix("; done")
    if "$seed" not in command:  # one that makes a figure of other records
        return command
    if len(wanted) == 1:
        return command.replace("$seed", str(wanted[0]))
    return f"for seed in {' '.join(map(str, wanted))}; do {command}; done"


def by_arm(records: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Mapping[str, Any]]:
    """A metric's records by their arm: with the arm's own settings, or else the one that trained longest."""
    mine = [one for one in records if one["metric"] == metric]
    mine.sort(key=lambda one: (" --set " not in one["command"], one["setting"]["iterations"]))
    return {one["arm"]: one for one in mine}


def by_scenes(records: Sequence[Mapping[str, Any]], arm: str) -> dict[int, dict[str, Mapping[str, Any]]]:
    """An arm's records by how many scenes it saw, and by metric: of several settings the one whose mean over
    the metrics is best on validation scenes, for all of them."""
    found: dict[int, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for one in records:
        if one["arm"] == arm:
            setting = json.dumps(one["setting"], sort_keys=True)
            found.setdefault(one["setting"]["scenes"], {}).setdefault(setting, {})[one["metric"]] = one
    return {
        scenes: max(settings.values(), key=lambda of: sum(one["validation"] for one in of.values()) / len(of))
        for scenes, settings in sorted(found.items())
    }
