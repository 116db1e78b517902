"""What there is of a run: settings, metrics, results; and what is missing, in words."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metafilm.config.config import Config
from metafilm.errors import MetafilmError, first_line
from metafilm.storage.models import model_path
from metafilm.storage.run import RunDirectory


@dataclass
class Found:
    """What lies where a name points to.

    Attributes:
        name: as the caller gave it.
        run: the run directory; None for weights alone.
        config: its settings, where they can be read.
        metrics: the records of ``metrics.jsonl``.
        results: what the run reported at its end.
        weights: path of the weights, or None.
        missing: a sentence for each thing that is not there or not whole.
    """

    name: str
    run: RunDirectory | None = None
    config: Config | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    missing: list[str] = field(default_factory=list)


def find(run_or_name: str) -> Found:
    """What there is of a run directory, a weights file or shipped weights.

    Raises:
        CheckpointError: nothing of the kind is there.
    """
    found = Found(run_or_name)
    folder = RunDirectory(run_or_name)
    if not (folder.config_file.is_file() or folder.metrics_file.is_file()):
        found.weights = model_path(run_or_name)
        found.missing.append(
            "There is no training to show: these are weights alone. metafilm report RUN shows the curves "
            "of a run directory."
        )
        return found
    found.run = folder
    try:
        found.weights = model_path(run_or_name)
    except MetafilmError:
        found.missing.append("There are no weights yet: they are written at the first validation.")
    try:
        found.config = folder.config()
    except MetafilmError as error:
        found.missing.append(f"The settings can't be read: {first_line(error)}.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found.metrics = folder.read_metrics()
    found.missing += [f"{warning.message}." for warning in said]
    if not found.metrics:
        found.missing.append("There are no metrics yet: they are written every ten iterations.")
    try:
        results = folder.read_results()
        found.results = results if isinstance(results, dict) else {}
    except (ValueError, RecursionError) as error:
        found.missing.append(f"results.json is damaged ({first_line(error)}).")
    if not found.results and found.config is not None and found.metrics:
        last = found.metrics[-1]["iteration"]
        ended = last >= found.config.outer.iterations
        how = "at its last iteration" if ended else f"at {found.config.reached(last)}"
        found.missing.append(f"The training has not ended (it is {how}), or was stopped.")
    return found


def column(metrics: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """The iterations at which a number was recorded, and what it was; names may be nested with ``/``."""
    x, y = [], []
    for record in metrics:
        value: Any = record
        for part in name.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            x.append(float(record["iteration"]))
            y.append(float(value))
    return x, y


def as_text(value: Any) -> str:
    """Plain values of a record as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
