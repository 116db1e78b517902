"""Where a run's numbers go: always metrics.jsonl, and Weights & Biases where it is asked for."""

from metafilm.training.tracking.pictures import Judged
from metafilm.training.tracking.start import require_wandb
from metafilm.training.tracking.sweep import under_sweep
from metafilm.training.tracking.tracker import Tracker

__all__ = ["Judged", "Tracker", "require_wandb", "under_sweep"]
