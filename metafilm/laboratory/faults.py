"""Whose fault it is that a training ended: that of its own settings, or of the machine."""

from __future__ import annotations

from pathlib import Path

import torch

from episodes.errors import EpisodesError
from metafilm.config import Config
from metafilm.engine.device import device_named
from metafilm.errors import MetafilmError, NotFinite
from metafilm.heads.base import SINGULAR
from metafilm.learner.build import build_learner
from metafilm.training.data import open_data
from metafilm.training.outer_gradient import Diverged
from metafilm.training.tracking import require_wandb

CAUGHT = (MetafilmError, EpisodesError, RuntimeError, MemoryError)
NUMBERS = (Diverged, NotFinite, SINGULAR)
CONTEXT = 2**30  # bytes of a GPU that a process's CUDA context and a desktop take besides


def require(config: Config, data_root: str | Path | None) -> None:
    """Find what a training needs before its first step: its device, its tracker, its episodes, its learner.

    Raises:
        EpisodesError, MetafilmError, RuntimeError, MemoryError: that is not there, or can't be built.
    """
    device_named(config.device)
    require_wandb(config)
    build_learner(config, **open_data(config, data_root).training.build)  # type: ignore[arg-type]


def of_settings(error: Exception, config: Config, base: Config, data_root: str | Path | None) -> bool:
    """Whether a training's own settings ended it: its numbers did not stay finite, it asked for more memory
    than there is, or it can't be begun though its base can.

    Args:
        error: what it ended with.
        config: its settings.
        base: those that it was made from, which could be begun before.

    Raises:
        EpisodesError, MetafilmError, RuntimeError, MemoryError: the base can't be begun any more either.
    """
    if isinstance(error, NUMBERS) or too_large(error):
        return True
    try:
        require(config, data_root)
    except CAUGHT:
        require(base, data_root)
        return True
    return False


def too_large(error: Exception) -> bool:
    """Whether a process ran out of memory by itself. Memory of a GPU that others hold may be there later."""
    if isinstance(error, torch.OutOfMemoryError):
        free, total = torch.cuda.mem_get_info()
        return total - free - torch.cuda.memory_reserved() < CONTEXT + total // 20
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
