"""The records of the laboratory, results/laboratory.json and results/sweeps.json, and their figures in docs/.

    metafilm ablate configs/laboratory_omniglot.yaml --questions penalty decoder --classes 8 64
    python scripts/laboratory.py ablation runs/ablations
    metafilm sweep laboratory_omniglot --data.classes 16 --trials 24
    metafilm sweep laboratory_omniglot --data.classes 16 --trials 24 --sampler random
    python scripts/laboratory.py sweep runs/laboratory_omniglot-sweep runs/laboratory_omniglot-sweep-random
    python scripts/laboratory.py draw

A question that is asked anew takes the place of its old answer, a sweep of another sampler stands beside the
first. Scores of single tasks are left out; the folders have them.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from metafilm.config import Config  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from metafilm.laboratory import QUESTIONS, answers, figure, tables, write_svg  # noqa: E402
from metafilm.laboratory.gains import with_gains  # noqa: E402
from metafilm.laboratory.space import values_of  # noqa: E402
from scripts.records import put  # noqa: E402

ABLATIONS, SWEEPS = "results/laboratory.json", "results/sweeps.json"
SAME = ("dataset", "split", "measure", "ways", "shots", "episodes", "protocol", "precision", "changes")
SAME += ("encoder_support",)
OF_SEED = ("seed", "gain", "training_seconds", "wall_seconds", "best_iteration", "failed", "command")
OF_SEED += ("train_command", "hardware", "commit")
SETTINGS = ("data", "episodes", "outer", "evaluation", "seed")
OF_TRIAL = ("trial", "state", "validation", "ci95", "training_classes", "best_iteration", "iterations")
OF_TRIAL += ("training_seconds", "settings")


def of_ablation(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each arm of each question and each number of training classes: means over seeds
    (:data:`metafilm.laboratory.answers.Answers`), and how each seed came about."""
    records, rows = with_gains(records), []
    for name, questions in answers(records).items():
        for question, arms in questions.items():
            for arm, by_classes in arms.items():
                for classes, cell in by_classes.items():
                    mine = [one for one in records if _is(one, name, question, arm, classes)]
                    first = next((one for one in mine if not one["failed"]), mine[0])
                    row = {"name": name, "config": first["config"], "question": question, "arm": arm}
                    row |= {"classes": classes, **{key: first.get(key) for key in SAME}, **cell}
                    rows.append(row | {"runs": [{key: one.get(key) for key in OF_SEED} for one in mine]})
    return rows


def _is(record: dict[str, Any], name: str, question: str, arm: str, classes: int | None) -> bool:
    named = record["settings"]["name"] == name and record["classes"] == classes
    return named and any(one["arm"] == arm for one in record.get("answers", {}).get(question, []))


def said(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The rows as :func:`metafilm.laboratory.tables` and :func:`metafilm.laboratory.figure` take them;
    questions in their usual order."""
    found: dict[str, Any] = {}
    order = list(QUESTIONS)
    for row in sorted(rows, key=lambda row: (row["name"], order.index(row["question"]))):
        arms = found.setdefault(row["name"], {}).setdefault(row["question"], {})
        arms.setdefault(row["arm"], {})[row["classes"]] = row
    return found


def table(rows: Iterable[dict[str, Any]]) -> str:
    """All questions, for a page."""
    return tables(said(rows)).strip()


def of_sweep(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One row for a sweep: what was searched and how, and each trial in the order of its asking."""
    trials = sorted(found["trials"], key=lambda trial: trial["trial"])
    made = [trial["environment"] for trial in trials if "environment" in trial]
    row = {
        key: found[key] for key in ("command", "search", "sampler", "pruner", "startup", "measure", "split")
    }
    config = found["config"]
    protocol = "transductive" if config["backbone"]["norm"] == "transductive" else "inductive"
    row |= {"name": config["name"], "folder": folder.as_posix(), "protocol": protocol}
    row |= {key: config[key] for key in SETTINGS}
    row["as_it_stands"] = values_of(Config.from_dict(config), found["search"])
    row["trials"] = [{key: trial.get(key) for key in OF_TRIAL} for trial in trials]
    row["training_seconds"] = sum(trial.get("training_seconds") or 0 for trial in trials)
    return row | {key: _each([one.get(key) for one in made]) for key in ("hardware", "commit")}


def _each(values: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))


def _sign(row: dict[str, Any]) -> int:
    """Of a sweep's validations, for the least to be the best."""
    return 1 if row["measure"] == "mse" else -1


def reached(row: dict[str, Any]) -> list[float]:
    """The best validation after each trial of a sweep, of those that were done until then."""
    sign = _sign(row)
    best: list[float] = []
    for trial in row["trials"]:
        if trial["state"] == "done":
            best.append(min([trial["validation"], *best[-1:]], key=lambda value: sign * value))
        elif best:
            best.append(best[-1])
    return best


def sweeps(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each sweep: its trials, what the configuration as it stands validates at, and the best."""
    lines = [
        "| sweep | done, given up, failed | as it stands | best trial | minutes | the best's settings |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        trials = row["trials"]
        counts = [
            sum(trial["state"] == state for trial in trials) for state in ("done", "given up", "failed")
        ]
        done = [trial for trial in trials if trial["state"] == "done"]
        best = min(done, key=lambda trial: trial["validation"] * _sign(row), default=None)
        chosen = best["settings"] if best else {}
        settings = ", ".join(f"{key} {_short(value)}" for key, value in chosen.items())
        first = [trial for trial in trials if trial["settings"] == row["as_it_stands"]]
        cells = [f"{row['name']}, {row['sampler']}", ", ".join(map(str, counts))]
        cells += [_score(first[0]) if first else "–", _score(best) if best else "–"]
        cells += [f"{row['training_seconds'] / 60:.0f}", settings or "–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _score(trial: dict[str, Any]) -> str:
    return f"{trial['validation']:.2f} ± {trial['ci95']:.2f}" if trial["state"] == "done" else trial["state"]


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def curves(rows: Sequence[dict[str, Any]]) -> Any:
    """The best validation so far against the number of trials, a line for each sweep."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = drawn.subplots()
    for row in rows:
        best = reached(row)
        first = len(row["trials"]) - len(best) + 1
        axes.step(
            range(first, first + len(best)), best, where="post", label=f"{row['name']}, {row['sampler']}"
        )
    axes.set(xlabel="trials", ylabel=f"best validation so far ({rows[0]['measure']})")
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return drawn


def read(path: Path) -> Any:
    """What a command of the laboratory left there. Raises MetafilmError where it is not, or is damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        made_by = "metafilm ablate" if path.name == "records.json" else "metafilm sweep"
        raise MetafilmError(f"{path} is not there; name a folder that {made_by} made") from None
    except ValueError:
        raise MetafilmError(f"{path} is damaged; let the command that made it write it again") from None


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=("ablation", "sweep", "draw"))
    parser.add_argument("folders", nargs="*", type=Path, help="that metafilm ablate or metafilm sweep made")
    options = parser.parse_args(arguments)
    if (options.do == "draw") == bool(options.folders):
        parser.error("draw takes no folders" if options.folders else f"{options.do} needs a folder at least")
    if options.do == "ablation":
        found = [row for folder in options.folders for row in of_ablation(_commands(folder))]
        put(root / ABLATIONS, found, _arm, ordered=False)
    elif options.do == "sweep":
        found = [of_sweep(read(folder / "trials.json"), folder) for folder in options.folders]
        put(root / SWEEPS, found, _sweep, ordered=False)
    else:
        for name, of_config in said(read(root / ABLATIONS)).items():
            write_svg(figure(of_config), root / "docs" / f"{name}.svg")
        if (root / SWEEPS).is_file():
            write_svg(curves(read(root / SWEEPS)), root / "docs" / "sweeps.svg")


def _commands(folder: Path) -> list[dict[str, Any]]:
    """An ablation's records, whose commands name its folder as the caller does and not by its whole path."""
    whole, named = f"--run-dir {folder.resolve().as_posix()}", f"--run-dir {folder.as_posix()}"
    records = read(folder / "records.json")
    for record in records:
        commands = (key for key in ("command", "train_command") if key in record)
        record.update({key: record[key].replace(whole, named) for key in commands})
    return records


def _sweep(row: dict[str, Any]) -> tuple[str, ...]:
    """What a sweep is of: one of more classes or longer trainings is another."""
    return tuple(str(row[key]) for key in ("name", "sampler", "search", "pruner", *SETTINGS))


def _arm(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["name"], row["question"], row["arm"], row["classes"]


if __name__ == "__main__":
    try:
        main()
    except MetafilmError as error:
        raise SystemExit(str(error)) from None
