"""A run at Weights & Biases."""

import os
from typing import Any

from metafilm.config.config import Config
from metafilm.errors import MetafilmError
from metafilm.storage.atomic import atomic_write
from metafilm.storage.run import RunDirectory
from metafilm.training.tracking.sweep import run_of_sweep


def require_wandb(config: Config) -> None:
    """Raise MetafilmError where the settings ask for wandb and it is not installed."""
    if config.tracking.wandb == "disabled":
        return
    if config.tracking.wandb == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # or importing it opens a line to its makers
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise MetafilmError(
            f"--tracking.wandb {config.tracking.wandb} needs the wandb package: "
            'pip install "metafilm[wandb]", or --tracking.wandb disabled'
        ) from error


def start_wandb(run: RunDirectory, config: Config) -> Any:
    """A wandb run whose id lies in the run directory, so that resuming the one resumes the other; under a
    sweep's agent the id is the one that the agent gave.

    Raises MetafilmError when wandb is not installed, or does not start.
    """
    require_wandb(config)
    import wandb

    id_file = run.path / "wandb-id.txt"
    if not id_file.is_file():
        atomic_write(id_file, (run_of_sweep() or os.urandom(8).hex()).encode())
    try:
        return wandb.init(
            project=config.tracking.project,
            name=config.name,
            id=id_file.read_text().strip(),
            resume="allow" if config.tracking.wandb == "online" else None,
            mode=config.tracking.wandb,
            dir=run.path,
            config=config.to_dict(),
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
    except wandb.Error as error:  # no account, no network
        raise MetafilmError(
            f"wandb did not start ({error}); log in with `wandb login`, or use --tracking.wandb offline"
        ) from error
