"""From samples to records: medians, spread, ratios, and how they were obtained."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rounds import Samples, System

OURS, FLOOR = "metafilm", "floor"
ORDER = (
    "train-28",
    "train-84",
    "evaluate-28",
    "sample-28",
    "sample-84",
    "serve-1000",
    "serve-1000-sorted",
    "adapt-lite0-96",
    "adapt-lite0-96-memory",
    "state",
    "memory",
    "scale-2",
    "import",
)
IN_BYTES = ("state", "memory", "adapt-lite0-96-memory")
KEYS = (
    "work",
    "precision",
    "threads",
    "system",
    "median",
    "spread",
    "ratio_to_ours",
    "floor_fraction",
    "command",
    "hardware",
    "commit",
    "rounds",
    "tasks",
    "note",
)
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What all records of one invocation share."""

    command: str
    threads: int
    hardware: str
    commit: str

    @classmethod
    def now(cls, command: str, threads: int) -> Run:
        """This machine and this checkout."""
        from scripts.records import commit, hardware

        try:
            revision = commit()
        except (OSError, subprocess.CalledProcessError):
            revision = "unknown"
        return cls(command, threads, hardware(), revision)


def spread(values: Sequence[float]) -> float:
    """The interquartile range: how far apart the 25th and 75th percentile of the rounds are (0 for one)."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def build(
    run: Run, work: str, systems: Iterable[System], samples: Samples, notes: str = "", *, unit_note: str = ""
) -> list[Record]:
    """One record per system and precision; ratios within a precision.

    ``ratio_to_ours`` is a system's median over metafilm's: above 1, metafilm is better. ``floor_fraction`` is
    the floor's median over the system's. Both None where there is nothing to compare with.
    """
    medians = {key: statistics.median(values) for key, values in samples.items() if values}
    records = []
    for system in systems:
        median = medians[system.key]
        ours, floor = (medians.get((name, system.precision)) for name in (OURS, FLOOR))
        note = "; ".join(part for part in (system.note, _across(medians, system), notes, unit_note) if part)
        values = (
            work,
            system.precision,
            run.threads,
            system.name,
            median,
            spread(samples[system.key]),
            median / ours if ours else None,
            floor / median if floor else None,
            run.command,
            run.hardware,
            run.commit,
            len(samples[system.key]),
            system.tasks,
            note,
        )
        records.append(dict(zip(KEYS, values, strict=True)))
    return records


def _across(medians: dict[tuple[str, str], float], system: System) -> str:
    """How a float32 peer compares with metafilm under bfloat16, where both were in the same rounds."""
    ours = medians.get((OURS, "bfloat16"))
    if not ours or system.precision != "float32" or system.name == FLOOR:
        return ""
    return f"{medians[system.key] / ours:.2f} times metafilm's time under bfloat16 in the same rounds"


def table(records: Sequence[Record]) -> str:
    """The records as text, one line each."""
    lines = [
        f"{'work':<23}{'precision':<10}{'system':<29}{'median':>12}{'spread':>12}{'ratio':>8}{'floor':>8}"
    ]
    for record in records:
        in_bytes = record["work"] in IN_BYTES
        ratio, floor = record["ratio_to_ours"], record["floor_fraction"]
        lines.append(
            f"{record['work']:<23}{record['precision']:<10}{record['system']:<29}"
            f"{quantity(record['median'], in_bytes):>12}{quantity(record['spread'], in_bytes):>12}"
            f"{'' if ratio is None else f'{ratio:.2f}':>8}{'' if floor is None else f'{floor:.0%}':>8}"
        )
    return "\n".join(lines)


BEGIN, END = "<!-- results/benchmark -->", "<!-- end of results/benchmark -->"


def committed(folder: Path) -> list[Record]:
    """The records of all JSON files in a folder, by work in the order of ORDER."""
    found = [record for file in sorted(folder.glob("*.json")) for record in json.loads(file.read_text())]
    return sorted(found, key=lambda r: (ORDER.index(r["work"]), r["precision"] != "float32"))


def markdown(records: Sequence[Record]) -> str:
    """The records as a table for the page in docs/."""
    lines = [
        "| work | precision | system | median per task | spread | peer / metafilm | floor / system |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in records:
        in_bytes = r["work"] in IN_BYTES
        ratio = "" if r["ratio_to_ours"] is None else f"{r['ratio_to_ours']:.2f}"
        part = "" if r["floor_fraction"] is None else f"{r['floor_fraction']:.0%}"
        median, spread = (quantity(r[key], in_bytes) for key in ("median", "spread"))
        lines.append(
            f"| {r['work']} | {r['precision']} | {r['system']} | {median} | {spread} | {ratio} | {part} |"
        )
    return "\n".join(lines)


def fill(page: str, records: Sequence[Record]) -> str:
    """The page with the table between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown(records)}\n{END}{after}"


def quantity(value: float, in_bytes: bool) -> str:
    """``1.23 ms`` or ``4.56 MiB``."""
    if in_bytes:
        return f"{value / 2**20:.2f} MiB" if value >= 2**20 else f"{value / 1024:.2f} KiB"
    return (
        f"{value:.3f} s"
        if value >= 1
        else f"{value * 1e3:.3f} ms"
        if value >= 1e-3
        else f"{value * 1e6:.1f} us"
    )
