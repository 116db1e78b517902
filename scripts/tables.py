"""The tables of the README and of docs/, made from the committed records: python scripts/tables.py

A page says `<!-- results/NAME.json -->` where a table begins and `<!-- end of NAME -->` where it ends;
`<!-- results/ -->` and `<!-- end of summary -->` stand round the summary of them all,
`<!-- results/benchmark/ -->` and `<!-- end of speed -->` round that of the times,
`<!-- results/conditioning/ -->` and `<!-- end of systems -->` round that of what other conditions do, and
`<!-- results/conditioning/visual-questions.json by scenes -->` and `<!-- end of scenes -->` round its curves.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from metafilm.cli.text.table import judging_in_words  # noqa: E402
from metafilm.evaluation import farthest  # noqa: E402
from metafilm.storage.atomic import atomic_write  # noqa: E402
from scripts import laboratory, projection  # noqa: E402
from scripts.comparing.table import to_target  # noqa: E402
from scripts.conditioning.committed import by_arm, by_scenes  # noqa: E402
from scripts.rows import ARMS  # noqa: E402

PAGES = (
    "README.md",
    "docs/results.md",
    "docs/adaptation.md",
    "docs/conditioning.md",
    "docs/film-lessons.md",
    "docs/regularisation.md",
)

SYSTEMS = {  # what conditions, what is conditioned, FiLM's arm, the arm that is deaf to the condition
    "visual-questions": ("a question", "a picture", "film-4", "none"),
    "sound-questions": ("a question", "a sound", "both", "blind"),
    "instructions": ("an instruction", "what an agent sees", "film", "none"),
    "segmentation": ("a phrase", "every place of a picture", "spatial", "none"),
    "generation": ("a class", "noise that becomes a picture", "linear", ""),
    "styles": ("a style", "a picture", "many", ""),
}

ARM_NAMES = {
    "prototypes": "plain prototypes",
    "constant+steps": "one δ for all tasks + 3 steps",
    "encoder": "encoder alone",
    "encoder+steps": "encoder + 3 steps",
}
SPEED = {  # what is timed: its records and the unit
    "meta-training 28×28, 2 second-order steps, a task": ("training", "train-28", "ms"),
    "meta-training 84×84, 5 second-order steps, a task": ("training", "train-84", "ms"),
    "adapt (5 steps) and predict, 28×28": ("evaluation", "evaluate-28", "ms"),
    "a request of 8 pictures among 1,000 tasks": ("serving", "serve-1000", "ms"),
    "the same, requests sorted by task": ("serving", "serve-1000-sorted", "ms"),
    "an adapted task": ("serving", "state", "kB"),
    "peak memory, 10 second-order steps": ("memory", "memory", "MB"),
}
ONE_STEP = {"encoder": "encoder", "steps": "1 step", "encoder+steps": "encoder + 1 step"}


def stages(rows: list[dict[str, Any]]) -> str:
    """Rows of `metafilm eval`, a column for each stage of adaptation."""
    functions = "mse" in rows[0]
    measure, digits = ("mse", 4) if functions else ("accuracy", 2)
    lines = [
        "| task | before adaptation | after the encoder | **after the inner loop** |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = dict(zip(row["stages"], row[f"{measure}_by_step"], strict=True))
        end = farthest(row["stages"])
        last = f"{row[f'{measure}_by_step'][end]:.{digits}f} ± {row['ci95_by_step'][end]:.{digits}f}"
        if functions:
            on = row["setting"]["encoder"], row["setting"]["inner_steps"] > 0
            name = {(True, True): "encoder and 1 inner step", (True, False): "encoder alone"}.get(on)
            name = name or ("1 inner step alone" if on[1] else "neither")
            if "kinds" in row["setting"]:
                name = f"{row['setting']['kinds']} kinds, {name}"
        else:
            name = f"{row['ways']}-way {row['shots']}-shot"
            reads = {"shuffled": "another task", "other-domain": "another data set"}.get(
                row["encoder_support"]
            )
            if "setting" in row:
                name = f"{ARM_NAMES[row['setting']['arm']]}, {row['shots']} shots"
                reads = reads and "another criterion's task (no steps)"
            name += f", encoder reads {reads}" if reads else ""
            name += f", {words}" if (words := judging_in_words(row)) else ""
        middle = f"{cells['encoder']:.{digits}f}" if "encoder" in cells else "–"
        lines.append(f"| {name} | {cells['identity']:.{digits}f} | {middle} | **{last}** |")
    return "\n".join(lines)


def by_seed(rows: list[dict[str, Any]]) -> str:
    """Rows of `metafilm eval` of trainings that differ by their seed: the mean over them, and each."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        words = judging_in_words(row)
        tasks.setdefault(f"{row['ways']}-way {row['shots']}-shot{words and f', {words}'}", []).append(row)
    count = max(map(len, tasks.values()))
    lines = [
        f"| task | {' | '.join(f'training {number + 1}' for number in range(count))} | **mean** |",
        "|---|" + "---|" * (count + 1),
    ]
    for task, found in tasks.items():
        each = [f"{row['accuracy']:.2f} ± {row['ci95']:.2f}" for row in found]
        mean = sum(row["accuracy"] for row in found) / len(found)
        lines.append(f"| {task} | {' | '.join(each)} | **{mean:.2f}** |")
    return "\n".join(lines)


def over_identity(rows: list[dict[str, Any]]) -> str:
    """Rows of `metafilm eval` of methods over one frozen network: that network at δ = 0, and what each has
    over it in pairs."""
    shapes = list(dict.fromkeys((row["ways"], row["shots"]) for row in rows))
    table: dict[str, dict[tuple[int, int], str]] = {"δ = 0": {}}
    for row in rows:
        shape = row["ways"], row["shots"]
        found = {
            stage: f"{gain:+.2f} ± {ci:.2f}"
            for stage, gain, ci in zip(
                row["stages"], row["gain_by_step"], row["gain_ci95_by_step"], strict=True
            )
        }
        accuracy, ci = row["accuracy_by_step"][0], row["ci95_by_step"][0]
        table["δ = 0"].setdefault(shape, f"{accuracy:.2f} ± {ci:.2f}")
        arm = ONE_STEP[row["setting"]["arm"]]
        last = [stage for stage in row["stages"] if stage != "gate"][-1]
        table.setdefault(arm, {})[shape] = found[last]
        if "gate" in found:
            table.setdefault(f"{arm}, under the gate", {})[shape] = found["gate"]
    lines = [f"| | {' | '.join(f'{ways}-way {shots}-shot' for ways, shots in shapes)} |"]
    lines.append("|---|" + "---|" * len(shapes))
    for arm, cells in table.items():
        lines.append(f"| {arm} | {' | '.join(cells.get(shape, '–') for shape in shapes)} |")
    return "\n".join(lines)


def adaptation(rows: list[dict[str, Any]]) -> str:
    """A row per network, data set and shots: δ = 0, and the paired gain of every other arm over it."""
    known = (
        "statistics",
        "logistic-regression",
        "constant",
        "encoder",
        "steps",
        "encoder+steps",
        "gate",
        "fine-tuning",
    )
    arms = [arm for arm in known if any(row["arm"] == arm for row in rows)]
    table: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        table.setdefault((row["backbone"], row["dataset"], row["shots"]), {})[row["arm"]] = row
    lines = [
        f"| network, tasks | shots | δ = 0 | {' | '.join(arms)} |",
        "|---|---|---|" + "---|" * len(arms),
    ]
    for (backbone, dataset, shots), found in sorted(table.items()):
        if set(found) == {"identity"}:
            continue
        cells = [
            f"{found[arm]['gain']:+.1f} ± {found[arm]['gain_ci95']:.1f}" if arm in found else "–"
            for arm in arms
        ]
        base = f"{found['identity']['accuracy']:.1f}"
        lines.append(f"| {backbone}, {dataset} | {shots} | {base} | {' | '.join(cells)} |")
    return "\n".join(lines)


MMAML = {2: 0.336, 3: 0.444, 5: 0.868}  # Vuorio et al. 2019, arXiv:1910.13616


def floors(rows: list[dict[str, Any]]) -> str:
    """How well mixtures of functions can be learned at all, and what a learner has above that."""
    lines = ["| kinds | posterior mean | metafilm above it, paired | MMAML above it |", "|---|---|---|---|"]
    for row in rows:
        kinds = row["setting"]["kinds"]
        above = f"{row['above']:+.3f} ± {row['above_ci95']:.3f}"
        published = f"{MMAML[kinds] - row['mse']:+.3f}"
        lines.append(f"| {kinds} | {row['mse']:.3f} ± {row['ci95']:.3f} | {above} | {published} |")
    return "\n".join(lines)


def drawings(rows: list[dict[str, Any]]) -> str:
    """Shipped weights side by side."""
    weights = ("omniglot-conv4", "drawings-conv4")
    names = {
        "none": "as they are",
        "unseen-filters": "unseen filters",
        "unseen-strokes": "unseen pens, inks and papers",
    }
    found = {(row["dataset"], row["style"], row["shots"], row["command"].split()[2]): row for row in rows}
    lines = [f"| characters | 5-way | {' | '.join(weights)} |", "|---|---|---|---|"]
    for dataset, style, shots in dict.fromkeys(key[:3] for key in found):
        cells = [found[dataset, style, shots, name] for name in weights]
        values = [f"{row['accuracy']:.2f} ± {row['ci95']:.2f}" for row in cells]
        lines.append(f"| {dataset}, {names[style]} | {shots}-shot | {' | '.join(values)} |")
    return "\n".join(lines)


def mixture(rows: list[dict[str, Any]]) -> str:
    """Trainings on a mixture of styles, a row for each kind of styles: plain prototypes, and what the others
    have over them in pairs; of the full method also what encoder and step have over its own δ = 0."""
    kinds = {"known-filters": "of the training", "unseen-filters": "others"}
    arms = ("prototypes", "support-statistics", "full")
    found = {(row["style"], row["setting"]["arm"]): row for row in rows}
    lines = [
        "| filters | plain prototypes | normalised by the support | over plain | full method "
        "| **over plain** | of it encoder, and encoder + step |",
        "|---|---|---|---|---|---|---|",
    ]
    for style, words in kinds.items():
        cells = []
        for arm in arms:
            row = found[style, arm]
            cells.append(f"{row['accuracy']:.2f} ± {row['ci95']:.2f}")
            if "gain" in row:
                cells.append(f"{row['gain']:+.2f} ± {row['gain_ci95']:.2f}")
        cells[-1] = f"**{cells[-1]}**"
        full = found[style, "full"]
        gains = list(zip(full["gain_by_step"], full["gain_ci95_by_step"], strict=True))[1:]
        cells.append(", ".join(f"{gain:+.2f} ± {ci:.2f}" for gain, ci in gains))
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def conditioned(rows: list[dict[str, Any]]) -> str:
    """A row per arm of a system that something else than a support set conditions, a column per metric. Where
    an arm has records of several settings, what differs stands behind its name. Those that saw fewer scenes
    than there are have a table of their own (`curve`)."""
    rows = [row for row in rows if not fewer(row, rows)]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    settings: dict[str, list[dict[str, Any]]] = {}
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        settings.setdefault(row["arm"], []).append(row["setting"])
    for row in rows:
        mine = row["setting"].items()
        differs = [(k, v) for k, v in mine if any(other[k] != v for other in settings[row["arm"]])]
        name = ", ".join([row["arm"], *(f"{k.replace('_', ' ')} {v}" for k, v in differs)])
        table.setdefault(name, {})[row["metric"]] = row
    gaps = [metric for metric in metrics if any("gap" in row for row in rows if row["metric"] == metric)]
    lines = [
        f"| arm | {' | '.join(metrics)} | "
        + "".join(f"gap, {metric} | " for metric in gaps)
        + "parameters, of them the condition's | seeds |",
        "|---" * (3 + len(metrics) + len(gaps)) + "|",
    ]
    for name, found in sorted(table.items()):
        first = next(iter(found.values()))
        cells = [number(found[m]["value"], found[m]["ci95"]) if m in found else "–" for m in metrics]
        cells += [f"{found[m]['gap']:+.1f}" if "gap" in found.get(m, {}) else "–" for m in gaps]
        condition = first.get("condition_parameters")
        size = f"{first['parameters']:,}" + ("" if condition is None else f", {condition:,.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {size} | {len(first['seeds'])} |")
    return "\n".join(lines)


def fewer(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether a record is of fewer training scenes than others of its system are."""
    scenes = [one["setting"].get("scenes", 0) for one in rows]
    return row["setting"].get("scenes", 0) < max(scenes)


def curve() -> str:
    """A row per number of training scenes and arm, of the setting that is best on validation scenes, and
    which settings were tried."""
    rows = read("conditioning/visual-questions")
    arms = list(dict.fromkeys(row["arm"] for row in rows if fewer(row, rows)))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines = [
        f"| training scenes | arm | {' | '.join(metrics)} | chosen, and tried |",
        "|---" * (3 + len(metrics)) + "|",
    ]
    for scenes, arm in sorted({(row["setting"]["scenes"], row["arm"]) for row in rows if row["arm"] in arms}):
        found = by_scenes(rows, arm)[scenes]
        own = [row["setting"] for row in rows if (row["setting"]["scenes"], row["arm"]) == (scenes, arm)]
        regular = "dropout" if arm == "mac" else "decay"
        chosen = found[metrics[0]]["setting"][regular]
        others = sorted({setting[regular] for setting in own} - {chosen})
        tried = f"{regular} {chosen:g}" + "".join(f", {other:g}" for other in others)
        cells = [number(found[metric]["value"], found[metric]["ci95"]) for metric in metrics]
        lines.append(f"| {scenes:,} | {arm} | {' | '.join(cells)} | {tried} |")
    return "\n".join(lines)


def systems() -> str:
    """A row per system and metric: FiLM beside the arm that never hears the condition."""
    lines = ["| what conditions what | metric | FiLM (arm) | deaf to it |", "|---|---|---|---|"]
    for name, (condition, conditioned_one, arm, deaf) in SYSTEMS.items():
        if f"conditioning/{name}" not in TABLES:
            continue
        rows = read(f"conditioning/{name}")
        # a loss says nothing by itself, its ratio to another does
        mine = [row["metric"] for row in rows if row["arm"] == arm and not row["metric"].endswith("-loss")]
        for metric in dict.fromkeys(mine):
            found = by_arm(rows, metric)
            row, other = found[arm], found.get(deaf)
            floor = "–" if other is None else number(other["value"], other["ci95"])
            lines.append(
                f"| {condition}, {conditioned_one} ([{name}](conditioning.md)) | {metric} | "
                f"{number(row['value'], row['ci95'])} ({arm}) | {floor} |"
            )
    return "\n".join(lines)


def number(value: float, ci95: float) -> str:
    """With its interval, to three places where it is a share and not per cent."""
    digits = 3 if abs(value) < 10 else 1
    return f"{value:.{digits}f} ± {ci95:.{digits}f}"


def summary() -> str:
    """A line for each block of records: the accuracies a newcomer wants, and what they are held against."""
    omniglot, mini, sines, criteria, found = (
        read(name)
        for name in ("omniglot-plain", "miniimagenet-pretrained", "sinusoids", "criteria", "adaptation")
    )

    def accuracy(rows: list[dict[str, Any]], ways: int, shots: int) -> str:
        each = [row["accuracy"] for row in rows if (row["ways"], row["shots"]) == (ways, shots)]
        return f"{sum(each) / len(each):.1f}"

    def arm(name: str, shots: int) -> str:
        (row,) = (
            row
            for row in criteria
            if (row["setting"]["arm"], row["shots"]) == (name, shots)
            and row["encoder_support"] != "other-domain"
        )
        return f"{row['accuracy']:.1f}"

    def lite(dataset: str, arm: str) -> str:
        (row,) = (
            row
            for row in found
            if (row["backbone"], row["dataset"], row["shots"], row["arm"]) == ("lite0", dataset, 5, arm)
        )
        return f"{row['accuracy']:.1f}"

    four = " / ".join(accuracy(omniglot, ways, shots) for ways, shots in ((5, 1), (5, 5), (20, 1), (20, 5)))
    seeds = len({row["training_seed"] for row in omniglot})
    two = " / ".join(accuracy(mini, 5, shots) for shots in (5, 1))
    both, alone = sines[0]["mse"], sines[2]["mse"]
    lines = [
        "| what | metafilm | beside it |",
        "|---|---|---|",
        "| Omniglot, Conv-4 with two poolings, five looks at a picture; 5-way 1- / 5-shot, 20-way 1- / "
        f"5-shot, mean of {seeds} trainings | {four} % | ProtoNet 98.8 / 99.7 / 96.0 / 98.9 % |",
        "| miniImageNet, Conv-4, ten and five looks at a picture; 5-way 5- / 1-shot | "
        f"{two} % | ProtoNet 68.2 / 49.4 %, RFS 71.6 / 55.3 % |",
    ]
    lines += [
        f"| frozen ImageNet network on {what}, 5-way 5-shot: task encoder | {lite(name, 'encoder')} % | "
        f"not adapted {lite(name, 'identity')} %, one δ for all tasks {lite(name, 'constant')} % |"
        for what, name in (
            ("characters of one alphabet", "omniglot-within"),
            ("drawings in unseen styles", "strokes-unseen-styles"),
        )
    ]
    lines += [
        f"| sorting by a criterion that the labels alone tell, 5-way 5-shot: encoder + 3 steps | "
        f"{arm('encoder+steps', 5)} % | plain prototypes {arm('prototypes', 5)} %, "
        f"one δ for all tasks + 3 steps {arm('constant+steps', 5)} % |",
        f"| sinusoids from 10 points, squared error: encoder + 1 step | {both:.4f} | "
        f"1 step alone {alone:.2f} |",
    ]
    return "\n".join(lines)


def speed() -> str:
    """Times and sizes beside learn2learn's, in both precisions where both were measured."""
    lines = [
        "| float32 / bfloat16 | metafilm | learn2learn's MAML | learn2learn's ANIL |",
        "|---|---|---|---|",
    ]
    for what, (name, work, unit) in SPEED.items():
        rows = [row for row in read(f"benchmark/{name}") if row["work"] == work]
        size = 1 / {"ms": 1e-3, "kB": 1e3, "MB": 1e6}[unit]
        cells = []
        for system in ("metafilm", "learn2learn-maml", "learn2learn-anil"):
            values = [size * row["median"] for row in rows if row["system"] == system]
            said = " / ".join(
                f"{value:,.{0 if value >= 10 else 1 if value >= 1 else 2}f}" for value in values
            )
            cells.append(f"{said} {unit}" if values else "–")
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    **dict.fromkeys(
        ("omniglot", "miniimagenet", "miniimagenet-pretrained", "sinusoids", "functions", "criteria"), stages
    ),
    **dict.fromkeys(("omniglot-plain", "omniglot-alphabets"), by_seed),
    **dict.fromkeys((name for name in ARMS if name.endswith("-arms")), over_identity),
    "adaptation": adaptation,
    "drawings": drawings,
    "styles": mixture,
    "functions-floor": floors,
    "laboratory": laboratory.table,
    "sweeps": laboratory.sweeps,
    "compare": to_target,
    "projection": projection.table,
    **{
        f"conditioning/{path.stem}": conditioned
        for path in sorted((ROOT / "results/conditioning").glob("*.json"))
    },
}


def read(name: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def filled(text: str) -> str:
    """A page with its tables as the records have them."""
    made = [
        (
            f"<!-- results/{name}.json -->",
            f"<!-- end of {name} -->",
            lambda name=name, table=table: table(read(name)),
        )
        for name, table in TABLES.items()
    ]
    made += [
        ("<!-- results/ -->", "<!-- end of summary -->", summary),
        ("<!-- results/benchmark/ -->", "<!-- end of speed -->", speed),
        ("<!-- results/conditioning/ -->", "<!-- end of systems -->", systems),
        ("<!-- results/conditioning/visual-questions.json by scenes -->", "<!-- end of scenes -->", curve),
    ]
    for begin, end, table in made:
        if begin in text:
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{table()}\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    for page in (ROOT / name for name in PAGES):
        atomic_write(page, filled(page.read_text(encoding="utf-8")).encode())


if __name__ == "__main__":
    main()
