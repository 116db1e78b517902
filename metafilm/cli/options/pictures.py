"""Options of the commands that take a learner to somebody's own pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from metafilm.cli.options.form import Switch
from metafilm.cli.text.output import (
    require_apart,
    require_file,
    require_kept,
    require_task_file,
    require_writable,
)
from metafilm.engine.device import DeviceName

# Options that several commands have, described once.
Weights = Annotated[
    str | None,
    tyro.conf.arg(help="Of timm:NAME and torchvision:NAME: default (from the library's hub) or a file."),
]
ImageSize = Annotated[
    int | None,
    tyro.conf.arg(
        help="Side of the pictures in the network; default: what it was made for. Half is four times as fast."
    ),
]
Steps = Annotated[
    int | None,
    tyro.conf.arg(
        help="Inner steps, at most as the gate says; default: 20, or as the run's learner adapts by itself."
    ),
]
StepSize = Annotated[float | None, tyro.conf.arg(help="Of Adam's steps; default: 0.0015.")]
NoGate = Annotated[Switch, tyro.conf.arg(help="Take all steps, whatever held-out pictures say of them.")]
Device = Annotated[
    DeviceName, tyro.conf.arg(help="Where to adapt and to classify; auto: on a GPU where there is one.")
]
Invert = Annotated[
    Literal["auto", "yes", "no"],
    tyro.conf.arg(
        help="Exchange light and dark; auto: where the examples as a whole are strokes on the other ground "
        "than those trained on, with a warning."
    ),
]


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
    """Inner steps; default: as the run's learner adapts by itself."""
    invert: Invert = "auto"
    reject: float | None = None
    """Say unknown of pictures that are like none of the classes, so that this share of pictures that are of a
    class, such as 0.05, is taken for unknown too; for weights that were calibrated."""
    json: Path | None = None
    """Write predictions and probabilities to this file; - for standard output."""
    save_task: Path | None = None
    """Keep what was learned as a small .safetensors file."""
    report: Path | None = None
    """Write a page of what was said of each picture, how sure, and which example is nearest."""
    device: Device = "auto"
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.predict import predict

        require_writable(self.json)
        require_task_file(self.save_task)
        require_file(self.report)
        require_apart(self.json, self.save_task, self.report)
        require_kept([self.run_or_name], self.json, self.save_task, self.report)
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
            self.device,
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
    weights: Weights = None
    image_size: ImageSize = None
    sites: tuple[str, ...] | None = None
    """FiLM sites: all (default), last, last N, or names of modules; fewer make a smaller file."""
    steps: Steps = None
    step_size: StepSize = None
    no_gate: NoGate = False
    invert: Invert = "auto"
    device: Device = "auto"
    json: Path | None = None
    """Write what was found to this file; - for standard output."""
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.adapt import adapt

        require_writable(self.json)
        require_task_file(self.out)
        require_apart(self.json, self.out)
        require_kept([self.backbone, self.weights], self.json, self.out)
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
            device=self.device,
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
class Export:
    """Adapt to a folder of pictures per class and write that task's network, to run without metafilm.

    Checked before it is put in its place: the file is read again, ONNX by ONNX Runtime, and must give the
    task's logits on the support pictures and on random ones. Classes, image size and value range stand in its
    metadata; the network normalises by itself and takes batches of any size.
    """

    run_or_name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run directory, a .safetensors file, shipped weights, lite0, timm:NAME or torchvision:NAME."""
    support: Path
    """Folder with a folder of example pictures for each class, of any size and mode."""
    out: Path
    """File to write: .pt2 a torch.export program, .onnx ONNX, .safetensors the task alone."""
    weights: Weights = None
    image_size: ImageSize = None
    sites: tuple[str, ...] | None = None
    """FiLM sites: all (default), last, last N, or names of modules."""
    steps: Steps = None
    step_size: StepSize = None
    no_gate: NoGate = False
    invert: Invert = "auto"
    debug: Switch = False
    """Show the traceback of an error."""

    def run(self) -> int:
        from metafilm.cli.export import export_task

        require_writable(self.out, "network.onnx")
        require_kept([self.run_or_name, self.weights], self.out)
        return export_task(
            self.run_or_name,
            self.support,
            self.out,
            weights=self.weights,
            image_size=self.image_size,
            sites=self.sites,
            steps=self.steps,
            step_size=self.step_size,
            gate=False if self.no_gate else None,
            invert=self.invert,
        )
