"""Scores as a reader sees them: a line per stage of adaptation."""

from collections.abc import Sequence
from typing import Any

from episodes.episode import shape_in_words


def print_table(found: dict[str, Any]) -> None:
    """Shape, a line per stage, what the encoder was worth, and the same of each domain of a mixture."""
    name = found["dataset"] if isinstance(found["dataset"], str) else " + ".join(found["dataset"])
    shape = shape_in_words(found["ways"], found["shots"])
    print(f"{name} {found['split']}, {shape}, {found['episodes']} episodes, {found['protocol']}")
    print_scores(found, found["stages"], found["encoder_support"], "  ")
    for domain, part in found.get("by_domain", {}).items():
        print(f"  of {domain}, {part['episodes']} episodes")
        print_scores(part, found["stages"], found["encoder_support"], "    ")
    if words := judging_in_words(found):
        print(f"  judged by {words}")
    print(f"  {found['wall_seconds']:.1f} s, {found['checkpoint']}")


def judging_in_words(found: dict[str, Any]) -> str:
    """`cosine + 0.4 reconstruction; features: centre, power; 2 copies by crop-flip`; empty where nothing but
    the head's name could be said."""
    words = []
    if found.get("blend"):
        words.append(f"{found['head']} + {found['blend_weight']:g} {found['blend']}")
    if found.get("transform"):
        words.append(f"features: {', '.join(found['transform'])}")
    copies, of_queries = found.get("copies"), found.get("query_copies")
    if copies and of_queries:
        words.append(f"{copies} copies, of a query {of_queries}, by {found['copy_augment']}")
    elif copies or of_queries:
        whose = "" if copies else "of a query "
        words.append(f"{copies or of_queries} copies {whose}by {found['copy_augment']}")
    if words and not found.get("blend"):
        words.insert(0, found["head"])
    return "; ".join(words)


def print_scores(found: dict[str, Any], stages: Sequence[str], read: str, indent: str) -> None:
    """A line per stage with its gain over the first, and what the encoder was worth.

    read: whose support set it read.
    """
    measure, unit = ("mse", "") if "mse" in found else ("accuracy", " %")
    digits = 4 if measure == "mse" else 2
    for position, stage in enumerate(stages):
        value, half = found[f"{measure}_by_step"][position], found["ci95_by_step"][position]
        line = f"{indent}{stage_in_words(stage):24} {value:.{digits}f} ± {half:.{digits}f}{unit}"
        print(line + (f"   {gain_in_words(found, position, stages[0])}" if position else ""))
    if "encoder_difference" in found:
        other = {
            "other-domain": "the task encoder read a support of another data set",
            "mean": "all tasks had the mean of other tasks' deviations",
        }.get(read, "the task encoder read another task's support")
        print(
            f"{indent}{other}; with its own: "
            f"{found[f'{measure}_own_support']:.{digits}f}{unit} "
            f"(difference {found['encoder_difference']:+.{digits}f} "
            f"± {found['encoder_difference_ci95']:.{digits}f})"
        )
        if found["encoder_shared_classes"]:
            print(f"{indent}it shares {found['encoder_shared_classes']:.2f} classes with the task on average")


def gain_in_words(found: dict[str, Any], position: int, first: str) -> str:
    """`+8.20 ± 0.90 over before adaptation`; of an error, how much lower it is."""
    gain, half = found["gain_by_step"][position], found["gain_ci95_by_step"][position]
    if "mse" in found:
        return f"lower by {gain:.4f} ± {half:.4f} than {stage_in_words(first)}"
    return f"{gain:+.2f} ± {half:.2f} over {stage_in_words(first)}"


def stage_in_words(stage: str) -> str:
    """`identity`, `encoder`, `step 3`, `gate`, `chosen` as a reader knows them."""
    words = {
        "identity": "before adaptation",
        "encoder": "after the task encoder",
        "gate": "after the gate",
        "chosen": "as it adapts by itself",
    }
    return words.get(stage, f"after inner {stage}")
