"""The command line: `metafilm demo | train | eval | predict | adapt | calibrate | report | app | data |
doctor`.

Here stand the commands and their options; what they do stands in the files beside this one, which are
imported only by the command that needs them. Options are spelled with hyphens; underscores are taken too.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from episodes import EpisodesError
from metafilm import __version__
from metafilm.cli.form import filled_in, form, form_of
from metafilm.cli.output import printable, report, require_file, require_writable
from metafilm.config import Config, load_config
from metafilm.errors import MetafilmError

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
if TYPE_CHECKING:
    Settings = Config
else:
    Settings = Annotated[form_of(Config), tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]


@dataclass(frozen=True)
class Demo:
    """Learn to learn on generated characters, without a download, and show what adaptation gains."""

    run_dir: Path = Path("runs/demo")
    """Folder of the run; if it holds a finished or interrupted demo, that one goes on."""
    episodes: int = 200
    """Test tasks per line of the table."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.demo import demo

        return demo(self.run_dir, self.episodes)


@dataclass(frozen=True)
class Train:
    """Train a configuration, or go on where its run stopped. Any setting can be given another value."""

    config: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CONFIG")]
    """A YAML file, or the name of a shipped configuration."""
    settings: Settings = field(default_factory=lambda: form(Config()))
    run_dir: Path | None = None
    """Folder of the run; default: runs/NAME."""
    task_chunk: int | None = None
    """Short for --outer.task-chunk."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Short for --outer.precision."""
    compile: Switch = False
    """Short for --outer.compile True."""
    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.train import train_or_resume

        return train_or_resume(self.settings, self.run_dir, self.data_root)

    def short(self) -> dict[str, Any]:
        """Settings of the section outer that were given by their short option."""
        given = {"task_chunk": self.task_chunk, "precision": self.precision, "compile": self.compile or None}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Eval:
    """Score a trained learner on the tasks of a split, at every stage of adaptation."""

    run_or_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run directory, a .safetensors file, or shipped weights such as omniglot-conv4."""
    ways: int | None = None
    """Classes in a task; default: as in the run's validation."""
    shots: int | None = None
    """Support images per class; default: as in the run's validation."""
    queries: int | None = None
    """Query images per class; default: as in the run's validation."""
    episodes: int = 600
    """Tasks."""
    seed: int = 0
    """Seed of the tasks."""
    split: str = "test"
    """Split to draw classes from."""
    steps: int | None = None
    """Inner steps; default: the run's."""
    encoder_support: Literal["own", "shuffled", "other-domain", "none"] = "own"
    """Whose support set the task encoder reads; shuffled: another task's of the same data set; other-domain:
    one of another data set. The difference to its own is reported."""
    dataset: tuple[str, ...] = ()
    """Another data set than the run's, or several, each scored by itself; give RUN before them. All other
    options are for each of them, and --json writes a list."""
    scheme: str | None = None
    """Another class split than the run's, e.g. lake."""
    style: str | None = None
    """Another per-task style than the run's."""
    within_group: Switch = False
    """Draw each task's classes from one group, e.g. one alphabet."""
    gate: Switch = False
    """Let held-out support pictures decide for each task whether it is adapted, and how far."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the backbone; bfloat16 is two to three times as fast on processors made for it."""
    allow_overlap: Switch = False
    """Score weights even where they are known to have seen the test classes (ImageNet's on miniImageNet)."""
    json: Path | None = None
    """Write the record to this file; - for standard output."""
    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.eval import print_records, records

        require_writable(self.json)
        found = records(
            self.run_or_name,
            self.dataset or (None,),
            ways=self.ways,
            shots=self.shots,
            queries=self.queries,
            episodes=self.episodes,
            seed=self.seed,
            split=self.split,
            steps=self.steps,
            encoder_support=self.encoder_support,
            scheme=self.scheme,
            style=self.style,
            within_group=self.within_group,
            precision=self.precision,
            gate=self.gate or None,
            allow_overlap=self.allow_overlap,
            data_root=self.data_root,
        )
        print_records(found, self.json)
        return 0


@dataclass(frozen=True)
class Predict:
    """Learn classes from a folder of pictures per class, and name the class of other pictures."""

    run_or_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run directory, a .safetensors file, or shipped weights such as omniglot-conv4."""
    support: Path
    """Folder with a folder of example pictures for each class, of any size and mode."""
    query: Path
    """Folder of pictures to classify; in class folders, the accuracy is reported too."""
    steps: int | None = None
    """Inner steps; default: the run's."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """Exchange light and dark; auto: where the examples as a whole are strokes on the other ground than those
    trained on, with a warning."""
    reject: float | None = None
    """Say unknown of pictures that are like none of the classes, so that this share of pictures that are of a
    class, such as 0.05, is taken for unknown too; for weights that were calibrated."""
    json: Path | None = None
    """Write predictions and probabilities to this file; - for standard output."""
    save_task: Path | None = None
    """Keep what was learned as a small .safetensors file."""
    report: Path | None = None
    """Write a page of what was said of each picture, how sure, and which example is nearest."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.predict import predict

        require_writable(self.json)
        require_writable(self.save_task)
        require_file(self.report)
        return predict(
            self.run_or_name,
            self.support,
            self.query,
            self.steps,
            self.invert,
            self.json,
            self.save_task,
            self.reject,
            self.report,
        )


@dataclass(frozen=True)
class Adapt:
    """Adapt a pre-trained network's FiLM layers to a folder of pictures per class; say what that is worth.

    Leave-one-out accuracy is of pictures that had no part in what names them: the classes' other pictures
    stand for them, under deviations that only the half of the pictures without this one adapted, the gate's
    choice included.
    """

    backbone: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="BACKBONE")]
    """lite0, timm:NAME, torchvision:NAME, a run directory, a .safetensors file, or shipped weights."""
    support: Path
    """Folder with a folder of example pictures for each class, of any size and mode."""
    query: Path | None = None
    """Folder of pictures to classify; in class folders, the accuracy is reported too."""
    out: Path | None = None
    """Keep what was learned as a small .safetensors file, for metafilm.Task.load."""
    weights: str | None = None
    """Of timm:NAME and torchvision:NAME: default (from the library's hub) or a file."""
    image_size: int | None = None
    """Side of the pictures in the network; default: what it was made for. Half is four times as fast."""
    sites: tuple[str, ...] | None = None
    """FiLM sites: all (default), last, last N, or names of modules; fewer make a smaller file."""
    steps: int | None = None
    """Inner steps, at most as the gate says; default: 20, or the run's."""
    step_size: float | None = None
    """Of Adam's steps; default: 0.0015."""
    no_gate: Switch = False
    """Take all steps, whatever held-out pictures say of them."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """Exchange light and dark; auto: where the examples as a whole are strokes on the other ground than those
    trained on, with a warning."""
    json: Path | None = None
    """Write what was found to this file; - for standard output."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.adapt import adapt

        require_writable(self.json)
        require_writable(self.out)
        return adapt(
            self.backbone,
            self.support,
            self.query,
            out=self.out,
            weights=self.weights,
            image_size=self.image_size,
            sites=self.sites,
            steps=self.steps,
            step_size=self.step_size,
            gate=not self.no_gate,
            invert=self.invert,
            json_file=self.json,
        )


@dataclass(frozen=True)
class Calibrate:
    """Measure on validation tasks what the weights' probabilities are worth, and keep that with the weights.

    A temperature by which probabilities mean what they say, and thresholds by which pictures of none of the
    classes are told (--reject of predict).
    """

    run_or_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run directory or a .safetensors file, which is written to."""
    ways: int | None = None
    """Classes in a task; default: as in the run's validation."""
    shots: tuple[int, ...] = (1, 5)
    """Support images per class, one or several numbers; give RUN before them."""
    episodes: int = 400
    """Tasks of each number of shots."""
    seed: int = 0
    """Seed of the tasks."""
    data_root: Path | None = None
    """Where data sets lie; default: $METAFILM_DATA, else the user's cache directory."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.calibrate import calibrate

        return calibrate(
            self.run_or_name,
            ways=self.ways,
            shots=self.shots,
            episodes=self.episodes,
            seed=self.seed,
            data_root=self.data_root,
        )


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
        from metafilm.cli.pages.report import report

        require_file(self.out)
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
        from metafilm.cli.pages.app import app

        return app(self.run_or_name, self.host, self.port, self.image_size, self.open)


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


def parse(
    arguments: Sequence[str],
) -> Demo | Train | Eval | Predict | Adapt | Calibrate | Report | App | DataCommand | Doctor:
    """Options to a command. The settings of `train CONFIG` start from that file.

    Raises MetafilmError, ConfigError listing all that is wrong with the settings.
    """
    arguments = [{"true": "True", "false": "False"}.get(word, word) for word in arguments]  # as in YAML
    settings, source = Config(), tyro.MISSING
    if len(arguments) > 1 and arguments[0] == "train" and not arguments[1].startswith("-"):
        source = arguments[1]
        settings = load_config(source)
    train = Train(config=source, settings=form(settings))
    commands = (
        Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Eval, tyro.conf.subcommand("eval")]
        | Annotated[Predict, tyro.conf.subcommand("predict")]
        | Annotated[Adapt, tyro.conf.subcommand("adapt")]
        | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
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
    if not isinstance(command, Train):
        return command
    if source is tyro.MISSING:  # its settings would be the defaults
        raise MetafilmError(f"name the configuration first: metafilm train {command.config} ...")
    return replace(command, settings=filled_in(command.settings, outer=command.short()))


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
