"""What is kept in files: weights, runs, tasks and banks; renamed into place, read without running code."""

from metafilm.storage.models import load_state, model_path, read_model, save_model, shipped_models
from metafilm.storage.run import RunDirectory

__all__ = ["RunDirectory", "load_state", "model_path", "read_model", "save_model", "shipped_models"]
