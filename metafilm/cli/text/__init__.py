"""What the command line says: tables, and lines that any terminal can show."""

from metafilm.cli.text.output import printable
from metafilm.cli.text.table import print_table, stage_in_words

__all__ = ["print_table", "printable", "stage_in_words"]
