"""Every setting of a run: its sections, reading them strictly, and the episodes that they ask for."""

from metafilm.config.config import Config, resume_differences
from metafilm.config.shipped import config_names, load_config

__all__ = ["Config", "config_names", "load_config", "resume_differences"]
