"""Options of the commands that look after data sets and the installation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metafilm.cli.options.form import Switch


@dataclass(frozen=True)
class DataList:
    """List the data sets there are, and where they lie."""

    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.data import list_all

        return list_all(self.data_root)


@dataclass(frozen=True)
class DataPrepare:
    """Fetch a data set, or build its cache."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    """Data set, as `metafilm data list` names it, or folder:PATH."""
    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.data import prepare

        return prepare(self.name, self.data_root)


@dataclass(frozen=True)
class DataCheck:
    """Compare a data set with what it should be."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    """Data set, as `metafilm data list` names it, or folder:PATH."""
    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.data import check

        return check(self.name, self.data_root)


@dataclass(frozen=True)
class DataCommand:
    """List, prepare or check the data sets."""

    action: Annotated[
        Annotated[DataList, tyro.conf.subcommand("list")]
        | Annotated[DataPrepare, tyro.conf.subcommand("prepare")]
        | Annotated[DataCheck, tyro.conf.subcommand("check")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        return self.action.run()


@dataclass(frozen=True)
class Doctor:
    """Show what this installation runs on: versions, processor, compiled kernels, data sets."""

    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.doctor import doctor

        return doctor(self.data_root)
