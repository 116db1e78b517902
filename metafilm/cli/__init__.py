"""The command line, a file a command; each is imported only when it is called."""

from metafilm.cli.commands import main

__all__ = ["main"]
