"""What a finished run leaves at Weights & Biases: tables, pictures, and its weights as an artifact."""

from __future__ import annotations

import re
from typing import Any

from metafilm.config.config import Config
from metafilm.storage.run import RunDirectory
from metafilm.training.tracking.pictures import Judged, heat, query_rows, sheet


def conclude(tracked: Any, run: RunDirectory, config: Config, worst: Judged | None) -> None:
    """Log what the whole run shows.

    - ``stages``: a table, validation's score at every stage over the iterations.
    - ``deviations``: a table of each parameter's root mean square; ``deviations_picture``: the same, a row
      for a parameter, a column for a record, dark where it deviates most.
    - ``worst_episode``: a table of the queries of validation's worst task, each with its picture, class, and
      what it was taken for; ``worst_episode_picture``: all of it at a glance. Not of functions.
    - the best weights and the settings, as an artifact of type ``model``.

    Args:
        tracked: wandb's run.
        worst: the validation task with the fewest queries right; None of functions.
    """
    import wandb

    records = run.read_metrics()
    found: dict[str, Any] = {}
    if stages := stage_rows(records):
        found["stages"] = wandb.Table(columns=["iteration", "stage", "score"], data=stages)
    if sizes := size_rows(records):
        found["deviations"] = wandb.Table(columns=["iteration", "parameter", "size"], data=sizes)
        found["deviations_picture"] = wandb.Image(
            heat(sizes), caption=f"rows: {', '.join(dict.fromkeys(row[1] for row in sizes))}"
        )
    if worst is not None:
        rows: list[Any] = [[wandb.Image(picture), *rest] for picture, *rest in query_rows(worst)]
        found["worst_episode"] = wandb.Table(columns=["picture", "class", "named", "probability"], data=rows)
        found["worst_episode_picture"] = wandb.Image(sheet(worst), caption=caption(worst))
    if run.model_file.is_file():
        artifact = wandb.Artifact(artifact_name(config.name), type="model", metadata=config.to_dict())
        artifact.add_file(str(run.model_file))
        artifact.add_file(str(run.config_file))
        tracked.log_artifact(artifact)
    if found:
        tracked.log(found)


def stage_rows(records: list[dict[str, Any]]) -> list[Any]:
    """[iteration, stage, score] of every validation."""
    rows = []
    for record in records:
        scores = next((v for k, v in record.items() if re.fullmatch("validation_[a-z]+_by_step", k)), [])
        stages = record.get("validation_stages", [])
        rows += [[record["iteration"], *pair] for pair in zip(stages, scores, strict=True)]
    return rows


def size_rows(records: list[dict[str, Any]]) -> list[Any]:
    """[iteration, parameter, root mean square of δ] of every record that has them."""
    return [
        [record["iteration"], name, size]
        for record in records
        for name, size in (record.get("sizes") or {}).items()
    ]


def caption(worst: Judged) -> str:
    """What the picture of a task shows."""
    number = int(worst.episode.index[0])
    return (
        f"validation's worst task, episode {number}: {worst.score:.1f} % right. A row is a class, left its "
        "support, right its queries; framed ones were named wrongly"
    )


def artifact_name(name: str) -> str:
    """A run's name in the letters that wandb allows."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]
