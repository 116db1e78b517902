"""Every setting of a run: its sections, reading them strictly, and the episodes that they ask for."""

from metafilm.config.config import Config, config_names, load_config, resume_differences

__all__ = ["Config", "config_names", "load_config", "resume_differences"]
