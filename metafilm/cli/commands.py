"""The command line: `metafilm demo | train | sweep | ablate | eval | predict | adapt | calibrate | export |
report | app | data | doctor`.

The commands' options stand in `options`; what they do stands in the files beside this one, which are imported
only by the command that needs them. Options are spelled with hyphens; underscores are taken too.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import tyro

from episodes import EpisodesError
from metafilm import __version__
from metafilm.cli.options import (
    Ablate,
    Adapt,
    App,
    Calibrate,
    DataCommand,
    Demo,
    Doctor,
    Eval,
    Export,
    Predict,
    Report,
    Sweep,
    Train,
    as_python_has_them,
    filled_in,
    form,
)
from metafilm.cli.text.output import printable, report
from metafilm.config import Config, load_config
from metafilm.errors import MetafilmError

Learning = Demo | Train | Sweep | Ablate
Command = Learning | Eval | Predict | Adapt | Calibrate | Export | Report | App | DataCommand | Doctor


def parse(arguments: Sequence[str]) -> Command:
    """Options to a command. The settings of `train CONFIG` and of `sweep CONFIG` start from that file.

    Raises MetafilmError, ConfigError listing all that is wrong with the settings.
    """
    arguments = as_python_has_them(arguments)
    settings, source = Config(), tyro.MISSING
    if len(arguments) > 1 and arguments[0] in ("train", "sweep") and not arguments[1].startswith("-"):
        source = arguments[1]
        settings = load_config(source)
    train = Train(config=source, settings=form(settings))
    sweep = Sweep(config=source, settings=form(settings), words=tuple(arguments))
    commands = (
        Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Sweep, tyro.conf.subcommand("sweep", default=sweep)]
        | Annotated[Ablate, tyro.conf.subcommand("ablate")]
        | Annotated[Eval, tyro.conf.subcommand("eval")]
        | Annotated[Predict, tyro.conf.subcommand("predict")]
        | Annotated[Adapt, tyro.conf.subcommand("adapt")]
        | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[App, tyro.conf.subcommand("app")]
        | Annotated[DataCommand, tyro.conf.subcommand("data")]
        | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    )
    command = tyro.cli(
        commands,  # type: ignore[arg-type]
        prog="metafilm",
        description="Few-shot learning where a task is a small set of FiLM deviations of a shared network. "
        "(metafilm --version: which one this is.)",
        args=arguments,
        use_underscores=False,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    if not isinstance(command, Train | Sweep):
        return command
    if source is tyro.MISSING:  # its settings would be the defaults
        name = type(command).__name__.lower()
        raise MetafilmError(f"name the configuration first: metafilm {name} {command.config} ...")
    short = command.short() if isinstance(command, Train) else {}
    return replace(command, settings=filled_in(command.settings, outer=short))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 after an error of the caller's, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with printable(), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            if arguments == ["--version"]:
                print(f"metafilm {__version__}")
                return 0
            code = parse(arguments).run()
            sys.stdout.flush()  # while its errors can still be told
            return code
        except (MetafilmError, EpisodesError, OSError) as error:
            if "--debug" in arguments:
                raise
            return report(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
