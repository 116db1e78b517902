"""The README's tables, of records of many kinds."""

from typing import Any

from scripts.records import read

SPEED = {  # what is timed: its records and the unit
    "meta-training 28×28, 2 second-order steps, a task": ("training", "train-28", "ms"),
    "meta-training 84×84, 5 second-order steps, a task": ("training", "train-84", "ms"),
    "adapt (5 steps) and predict, 28×28": ("evaluation", "evaluate-28", "ms"),
    "a request of 8 pictures among 1,000 tasks": ("serving", "serve-1000", "ms"),
    "the same, requests sorted by task": ("serving", "serve-1000-sorted", "ms"),
    "an adapted task": ("serving", "state", "kB"),
    "peak memory, 10 second-order steps": ("memory", "memory", "MB"),
}


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

    def minutes(systems: str) -> str:
        """Of the fastest of these."""
        reached = [
            row["minutes_to_target"]
            for row in read("compare")
            if (row["work"], row["budget"], row["target"]) == ("omniglot-20w1s", "target", 94.0)
            and row["system"].startswith(systems)
            and row["minutes_to_target"] is not None
        ]
        return f"{min(reached):.1f}"

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
        "| minutes of one thread to 94 % of Omniglot's 20-way 1-shot validation tasks, one training each | "
        f"{minutes('metafilm')} ({minutes('metafilm-wide')} with the same network) | "
        f"learn2learn's ProtoNet {minutes('learn2learn-protonet')} |",
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
