"""Tables of rows of `metafilm eval` and of what is held against them."""

from typing import Any

from episodes.episode import shape_in_words
from metafilm.cli.text.table import judging_in_words
from metafilm.evaluation import farthest

ARM_NAMES = {
    "prototypes": "plain prototypes",
    "constant+steps": "one δ for all tasks + 3 steps",
    "encoder": "encoder alone",
    "encoder+steps": "encoder + 3 steps",
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
            name = shape_in_words(row["ways"], row["shots"])
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
        task = shape_in_words(row["ways"], row["shots"]) + (words and f", {words}")
        tasks.setdefault(task, []).append(row)
    count = max(map(len, tasks.values()))
    lines = [
        f"| task | {' | '.join(f'training {number + 1}' for number in range(count))} | **mean** |",
        "|---|" + "---|" * (count + 1),
    ]
    for task, found in tasks.items():
        each = [_accuracy(row) for row in found]
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
            stage: _gain(gain, ci)
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
    lines = [f"| | {' | '.join(shape_in_words(*shape) for shape in shapes)} |"]
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
        values = [_accuracy(row) for row in cells]
        lines.append(f"| {dataset}, {names[style]} | {shots}-shot | {' | '.join(values)} |")
    return "\n".join(lines)


def mixture(rows: list[dict[str, Any]]) -> str:
    """Trainings on a mixture of styles: plain prototypes, and what the others have over them in pairs; of the
    full method also what it has over the same without encoder and step, and these over its own δ = 0."""
    arms = {
        "prototypes": "plain prototypes",
        "prototypes-by-support": "the same weights, normalised by each task's support in the test",
        "support-statistics": "trained so, too",
        "full": "full method, normalised so",
    }
    kinds = ("known-filters", "unseen-filters")
    found = {(row["style"], row["setting"]["arm"]): row for row in rows}
    lines = [
        "| | filters of the training | over plain | other filters | over plain |",
        "|---|---|---|---|---|",
    ]
    for arm, words in arms.items():
        cells = []
        for style in kinds:
            row = found[style, arm]
            cells.append(_accuracy(row))
            cells.append(_gain(*row["over"]["prototypes"]) if row["over"] else "–")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    full = [found[style, "full"] for style in kinds]
    beside = (_gain(*row["over"]["support-statistics"]) for row in full)
    lines.append(f"| over the network trained so, without encoder and step | | {' | | '.join(beside)} |")
    for position, words in ((1, "its encoder, over its δ = 0"), (2, "encoder and step, over its δ = 0")):
        gains = [_gain(row["gain_by_step"][position], row["gain_ci95_by_step"][position]) for row in full]
        lines.append(f"| {words} | | {' | | '.join(gains)} |")
    return "\n".join(lines)


def _accuracy(row: dict[str, Any]) -> str:
    return f"{row['accuracy']:.2f} ± {row['ci95']:.2f}"


def _gain(value: float, half: float) -> str:
    return f"{value:+.2f} ± {half:.2f}"
