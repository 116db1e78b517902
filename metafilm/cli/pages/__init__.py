"""The commands that make pages: `metafilm report` and `metafilm app`."""

from metafilm.cli.pages.app import app
from metafilm.cli.pages.report import report

__all__ = ["app", "report"]
