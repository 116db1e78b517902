"""Tables of systems that something else than a support set conditions."""

from typing import Any

from scripts.conditioning.committed import by_arm, by_scenes
from scripts.records import read

SYSTEMS = {  # what conditions, what is conditioned, FiLM's arm, the arm that is deaf to the condition
    "visual-questions": ("a question", "a picture", "film-4", "none"),
    "sound-questions": ("a question", "a sound", "both", "blind"),
    "instructions": ("an instruction", "what an agent sees", "film", "none"),
    "segmentation": ("a phrase", "every place of a picture", "spatial", "none"),
    "generation": ("a class", "noise that becomes a picture", "linear", ""),
    "styles": ("a style", "a picture", "many", ""),
}


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
