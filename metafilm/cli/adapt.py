"""`metafilm adapt`: a pre-trained network, a few pictures a class, and out comes a task in a small file."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from episodes.progress import Progress
from metafilm.cli.predict import Pictures, as_records, print_table, read_support, tell_skipped
from metafilm.cli.text.output import require_counts, tell, to_standard_output
from metafilm.engine.device import DeviceName, device_named
from metafilm.errors import MetafilmError
from metafilm.learner.build import is_pretrained, load_learner, pretrained_learner
from metafilm.learner.gate import HeldOut, leave_one_out
from metafilm.learner.inner_loop import watcher
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.support import as_pictures, support_episode
from metafilm.learner.task import Task
from metafilm.storage.atomic import finite


def adapt(
    backbone: str,
    support: Path,
    query: Path | None = None,
    *,
    out: Path | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    sites: tuple[str, ...] | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    gate: bool = True,
    invert: str = "auto",
    device: DeviceName = "auto",
    json_file: Path | None = None,
) -> int:
    """Adapt the FiLM layers to the support pictures, say what that is worth, classify the query pictures.

    Prints a few lines (with `json_file` -: JSON), then writes the files asked for, whole or not at all.
    Raises MetafilmError, EpisodesError.
    """
    require_counts(steps=(steps, 0))
    place = device_named(device)  # its error comes before the weights
    learner = learner_of(backbone, weights, image_size, sites, step_size).to(place)
    examples = read_support(learner, backbone, support, invert)
    images, labels = examples.images, examples.labels
    pictures = None if query is None else Pictures(learner, query, examples)
    skipped = [*examples.skipped, *([] if pictures is None else pictures.skipped)]
    tell_skipped(skipped)
    task, held_out = adapted(learner, images, labels, steps, gate)
    found: dict[str, Any] = {
        "backbone": backbone,
        "classes": task.classes,
        "support": len(labels),
        "inverted": examples.recipe.inverted,
        "copies": len(images) - len(images.flatten(1).unique(dim=0)),
        "leave_one_out": None if held_out is None else held_out._asdict(),
        "gate": None if task.report is None else finite(task.report.to_dict()),
        "deviations": sum(value.numel() for value in task.film.values()),
        "skipped": as_records(skipped),
        **({} if pictures is None else pictures.predicted(task)),
    }
    text = json.dumps(found, indent=2) + "\n"

    def show() -> None:
        print_adaptation(found, task)
        if pictures is not None:
            print_table(found)

    tell(text, json_file, show, *([] if out is None else [partial(task.save, out)]))
    if out is not None and not to_standard_output(json_file):
        print(f"written to {out}, {out.stat().st_size / 1000:.0f} kB")
    return 0


def learner_of(
    backbone: str,
    weights: str | None,
    image_size: int | None,
    sites: tuple[str, ...] | None,
    step_size: float | None,
) -> MetaFiLM:
    """A pre-trained network's learner by the options, or a trained one, which has its own.

    Raises MetafilmError: options that a trained learner can't take, or see `load_learner`.
    """
    if not is_pretrained(backbone):
        options = {"weights": weights, "image-size": image_size, "sites": sites, "step-size": step_size}
        if given := [f"--{option}" for option, value in options.items() if value is not None]:
            raise MetafilmError(
                f"{', '.join(given)}: for lite0, timm:NAME and torchvision:NAME; {backbone} is taken as it "
                "was trained"
            )
        return load_learner(backbone)
    words = " ".join(sites or ("all",))
    settings: dict[str, Any] = {} if step_size is None else {"step_size": step_size}
    return pretrained_learner(
        backbone,
        weights=weights,
        image_size=image_size,
        sites=words if len(sites or ()) < 2 or words.startswith("last ") else list(sites or ()),
        **settings,
    )


def adapted(
    learner: MetaFiLM, images: Any, labels: list[str], steps: int | None, gate: bool
) -> tuple[Task, HeldOut | None]:
    """The task, and what its adaptation is worth on pictures that it has not seen; with a bar over steps."""
    most = learner.evaluation_steps if steps is None else steps
    pictures = as_pictures(images, learner.image_shape).to(learner.mean.device)
    episode, _ = support_episode(pictures, labels, regression=False)
    # the whole support and two halves, and of each the halves where there is a gate: the bar may end sooner
    with Progress("adapting", total=9 * most if gate else 3 * most) as bar, learner.evaluating():
        token = watcher.set(bar.advance)
        try:
            held_out = leave_one_out(learner, episode, steps=steps, gate=gate)
            return learner.adapt(images, labels, steps=steps, gate=gate, checked=True), held_out
        finally:
            watcher.reset(token)


def print_adaptation(found: dict[str, Any], task: Task) -> None:
    """What was learned from, what the gate saw, and what it is worth."""
    where = f"{len(task.film) // 2} FiLM sites of {found['backbone']}"
    print(f"{found['support']} pictures of {len(task.classes)} classes; {where}")
    if task.report is not None:
        print(task.report)
    held_out = found["leave_one_out"]
    if held_out is None:
        print("no class has a second picture that could be left out to measure accuracy")
    else:
        gain = f"{held_out['before']:.1f} % before adaptation, {held_out['after']:.1f} % after"
        print(f"leave-one-out accuracy of {held_out['images']} pictures: {gain}")
        if found["copies"]:
            print(
                f"warning: {found['copies']} of the pictures are copies of others, which makes this too high"
            )
