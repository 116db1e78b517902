"""The commands that train many times."""

from metafilm.cli.laboratory.ablate import ablate
from metafilm.cli.laboratory.sweep import search

__all__ = ["ablate", "search"]
