"""Options of the commands that train and score."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from metafilm.cli.options.form import Switch, form, form_of
from metafilm.cli.text.output import require_kept, require_writable
from metafilm.config import Config

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
    """Inner steps; default: as the run's learner adapts by itself."""
    encoder_support: Literal["own", "shuffled", "mean", "other-domain", "none"] = "own"
    """Whose support set the task encoder reads; shuffled: another task's of the same data set; mean: none's,
    all tasks get the mean of other tasks' deviations; other-domain: one of another data set. The difference
    to its own is reported."""
    dataset: tuple[str, ...] = ()
    """Another data set than the run's, or several, each scored by itself; give RUN before them. All other
    options are for each of them, and --json writes a list."""
    scheme: str | None = None
    """Another class split than the run's, e.g. lake."""
    style: str | None = None
    """Another per-task style than the run's."""
    within_group: Switch = False
    """Draw each task's classes from one group, e.g. one alphabet."""
    rotated_classes: Literal["yes", "no"] | None = None
    """Whether pictures turned by 90, 180 and 270 degrees are classes of their own; default: as the run has it
    on its own data, and no on other."""
    head: str | None = None
    """Another head than the run's, fitted to each task's support (head.name)."""
    head_scale: float | None = None
    """First value of another head's factor on the logits (head.scale)."""
    transform: tuple[str, ...] | None = None
    """What is done to features before the head compares them, some of centre, power and normalise, in this
    order; none: nothing (head.transform). The mean to centre by is measured on the run's training classes."""
    blend: str | None = None
    """A second head that judges with the first (head.blend)."""
    blend_weight: float | None = None
    """Its weight, from 0 to 1 (head.blend_weight); default: a half."""
    pooling: str | None = None
    """How the last maps become features (backbone.pooling), for example flatten2x2 for heads of cells."""
    norm: str | None = None
    """Where normalisation statistics come from (backbone.norm): support, each task's own support images,
    where its pictures look unlike those of the training; or transductive, which the record then says."""
    copies: int | None = None
    """Augmented copies of each support image that the head is fitted to as well (evaluation.copies)."""
    copy_augment: str | None = None
    """Augmentation that makes them (evaluation.copy_augment)."""
    query_copies: int | None = None
    """Copies of each query image by the same augmentation, whose logits are averaged with its own
    (evaluation.query_copies)."""
    gate: Switch = False
    """Let held-out support pictures decide for each task whether it is adapted, and how far."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the backbone; bfloat16 is two to three times as fast on processors made for it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to score; auto: on a GPU where there is one."""
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
        require_kept([self.run_or_name], self.json)
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
            rotated_classes=self.rotated_classes,
            precision=self.precision,
            gate=self.gate or None,
            device=self.device,
            allow_overlap=self.allow_overlap,
            data_root=self.data_root,
            head=self.head,
            scale=self.head_scale,
            transform=self.transform,
            blend=self.blend,
            blend_weight=self.blend_weight,
            pooling=self.pooling,
            norm=self.norm,
            copies=self.copies,
            copy_augment=self.copy_augment,
            query_copies=self.query_copies,
        )
        print_records(found, self.json)
        return 0
