"""Options of the commands that make pages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metafilm.cli.options.form import Switch
from metafilm.cli.text.output import require_file, require_kept


@dataclass(frozen=True)
class Report:
    """Write one page about a run: curves, accuracy by stage, deviations, map of tasks, the worst episodes."""

    run_or_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run directory, a .safetensors file, or shipped weights such as omniglot-conv4."""
    out: Path | None = None
    """The file; default: report.html in the run directory, of weights alone NAME-report.html here."""
    episodes: int = 100
    """Tasks that are scored for the page; 0: none."""
    split: str = "val"
    """Split to draw their classes from."""
    ways: int | None = None
    """Classes in a task; default: as in the run's validation."""
    shots: int | None = None
    """Support images per class; default: as in the run's validation."""
    seed: int = 0
    """Seed of the tasks."""
    dataset: str | None = None
    """Another data set than the run's."""
    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.report import report

        require_file(self.out)
        require_kept([self.run_or_name], self.out)
        return report(
            self.run_or_name,
            self.out,
            episodes=self.episodes,
            split=self.split,
            ways=self.ways,
            shots=self.shots,
            seed=self.seed,
            dataset=self.dataset,
            data_root=self.data_root,
        )


@dataclass(frozen=True)
class App:
    """Open a local page on which to draw, upload or photograph a few examples, and then ask."""

    run_or_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = "omniglot-conv4"
    """A run directory, a .safetensors file, shipped weights, lite0, timm:NAME or torchvision:NAME."""
    host: str = "127.0.0.1"
    """Address to listen on; another than this machine's own loopback lets others in."""
    port: int = 8321
    """Port; 0: any that is free."""
    image_size: int | None = None
    """Side of the pictures in lite0, timm:NAME and torchvision:NAME; default: what it was made for."""
    open: Switch = False
    """Open the page in the browser."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.app import app

        return app(self.run_or_name, self.host, self.port, self.image_size, self.open)
