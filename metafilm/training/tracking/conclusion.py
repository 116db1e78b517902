"""What a finished run leaves at Weights & Biases: tables, pictures, and its weights as an artifact."""

from __future__ import annotations

import re
from typing import Any

from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.learner.build import load_learner
from metafilm.storage.run import RunDirectory
from metafilm.training.tracking.pictures import heat, sheet
from metafilm.training.tracking.worst import Worst, worst_episode


def conclude(tracked: Any, run: RunDirectory, config: Config, validation: Source) -> None:
    """Log what the whole run shows.

    - ``stages``: a table, validation's score at every stage over the iterations.
    - ``deviations``: a table of each parameter's root mean square; ``deviations_picture``: the same, a row
      for a parameter, a column for a record, dark where it deviates most.
    - ``worst_episode``: a table of the queries of validation's worst task, each with its picture, class, and
      what it was taken for; ``worst_episode_picture``: all of it at a glance. Not of functions.
    - the best weights and the settings, as an artifact of type ``model``.

    Args:
        tracked: wandb's run.
        validation: the episodes that chose the weights; as many of them are gone through as a validation has.
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
    if run.model_file.is_file():
        if validation.pools:
            learner = load_learner(run.path)
            worst = worst_episode(learner, validation, config.evaluation.episodes)
            rows: list[Any] = [[wandb.Image(one.picture), *one[1:]] for one in worst.queries]
            found["worst_episode"] = wandb.Table(
                columns=["picture", "class", "named", "probability"],
                data=rows,
            )
            found["worst_episode_picture"] = wandb.Image(sheet(worst), caption=caption(worst))
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


def caption(worst: Worst) -> str:
    """What the picture of a task shows."""
    return (
        f"validation's worst task, episode {worst.number}: {worst.accuracy:.1f} % right. A row is a class, "
        "left its support, right its queries; framed ones were named wrongly"
    )


def artifact_name(name: str) -> str:
    """A run's name in the letters that wandb allows."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]
