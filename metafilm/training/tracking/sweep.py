"""Under an agent of a Weights & Biases sweep: each run with the settings that the sweep chose for it.

The agent (`wandb agent SWEEP`, or `wandb.agent` in Python) names the sweep, the run and a file with the run's
parameters in its environment. Whether the sweep's command also hands them on as options (`${args}`) makes no
difference.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from metafilm.config.config import Config
from metafilm.errors import MetafilmError

SWEEP, RUN, PARAMETERS = "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"


def run_of_sweep() -> str | None:
    """The id that an agent gave this run; None without an agent."""
    return os.environ.get(RUN) if os.environ.get(SWEEP) else None


def under_sweep(config: Config, run_dir: Path | None) -> tuple[Config, Path | None]:
    """The settings and the folder of this run: as they are, or as the sweep says whose agent started it.

    The sweep's parameters are settings by their dotted names (`outer.learning_rate`) or nested; they take the
    place of the configuration's. wandb is on, since the agent waits for the run's metrics; and the default
    folder is runs/NAME-ID, one for each run of the sweep.

    Raises:
        ConfigError: a parameter is no setting, or has an impossible value; all of them are listed.
        MetafilmError: the agent's file can't be read.
    """
    run = run_of_sweep()
    if run is None:
        return config, run_dir
    sweep = os.environ[SWEEP]
    settings = config.to_dict()
    for name, value in parameters(os.environ.get(PARAMETERS)).items():
        put(settings, name.replace("-", "_").split("."), value)
    config = Config.from_dict(settings, source=f"sweep {sweep}")
    if config.tracking.wandb == "disabled":
        config = replace(config, tracking=replace(config.tracking, wandb="online"))
    return config, run_dir or Path("runs") / f"{config.name}-{run}"


def parameters(path: str | None) -> dict[str, Any]:
    """Name -> value, from the agent's YAML file of `name: {value: ...}`. Raises MetafilmError."""
    if not path:
        return {}
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        return {str(name): entry["value"] for name, entry in found.items() if name != "wandb_version"}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise MetafilmError(
            f"{path}, named by {PARAMETERS}, is no file of a sweep's parameters ({type(error).__name__}); "
            f"start the run by `wandb agent`, or unset {SWEEP}"
        ) from error


def put(settings: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a nested entry; a mapping is merged into the section that is there."""
    for name in path[:-1]:
        inner = settings.setdefault(name, {})
        if not isinstance(inner, dict):  # a setting where a section was named; the check says so
            settings[name] = inner = {}
        settings = inner
    here = settings.get(path[-1])
    if isinstance(value, Mapping) and isinstance(here, dict):
        for name, entry in value.items():
            put(here, [str(name).replace("-", "_")], entry)
    else:
        settings[path[-1]] = value
