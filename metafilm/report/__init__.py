"""Pages to read: one HTML file about a run, or about what was said of a user's pictures."""

from metafilm.report.found import Found, find
from metafilm.report.naming import Names
from metafilm.report.page.document import style, write
from metafilm.report.page.pictures import data_address
from metafilm.report.predictions import nearest, prediction_report
from metafilm.report.run import Asked, run_report
from metafilm.report.scored import score

__all__ = [
    "Asked",
    "Found",
    "Names",
    "data_address",
    "find",
    "nearest",
    "prediction_report",
    "run_report",
    "score",
    "style",
    "write",
]
