"""The options of every command, each documented once: what `metafilm COMMAND --help` shows."""

from metafilm.cli.options.form import as_python_has_them, filled_in, form
from metafilm.cli.options.laboratory import Ablate, Sweep
from metafilm.cli.options.pages import App, Report
from metafilm.cli.options.pictures import Adapt, Calibrate, Export, Predict
from metafilm.cli.options.training import Demo, Eval, Train
from metafilm.cli.options.upkeep import DataCommand, Doctor

__all__ = [
    "Ablate",
    "Adapt",
    "App",
    "Calibrate",
    "DataCommand",
    "Demo",
    "Doctor",
    "Eval",
    "Export",
    "Predict",
    "Report",
    "Sweep",
    "Train",
    "as_python_has_them",
    "filled_in",
    "form",
]
