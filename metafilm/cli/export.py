"""`metafilm export`: a few pictures a class in, out comes that task's network, to run without metafilm."""

from pathlib import Path

from episodes.progress import Progress
from metafilm.cli.adapt import learner_of
from metafilm.cli.predict import read_support, tell_skipped
from metafilm.cli.text.output import require_counts
from metafilm.learner.inner_loop import watcher
from metafilm.serving import Exported, export, require_exportable


def export_task(
    run_or_name: str,
    support: Path,
    out: Path,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    sites: tuple[str, ...] | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    gate: bool | None = None,
    invert: str = "auto",
) -> int:
    """Adapt to the support pictures, write the network of that task, and say what it was checked by.

    Unreadable pictures are named on standard error and skipped. Raises MetafilmError, EpisodesError.
    """
    require_exportable(out)  # before the work
    require_counts(steps=(steps, 0))
    learner = learner_of(run_or_name, weights, image_size, sites, step_size)
    examples = read_support(learner, run_or_name, support, invert)
    images, labels = examples.images, examples.labels
    tell_skipped(examples.skipped)
    most = learner.evaluation_steps if steps is None else steps
    # with a gate, two halves of the support too
    with Progress("adapting", total=3 * most) as bar:
        token = watcher.set(bar.advance)
        try:
            task = learner.adapt(images, labels, steps=steps, gate=gate, checked=True)
        finally:
            watcher.reset(token)
    found = export(task, out, images)  # before anything is printed, which somebody may not read to its end
    print(f"{len(labels)} pictures of {len(task.classes)} classes: {', '.join(map(str, task.classes))}")
    if task.report is not None:
        print(task.report)
    print(said(found))
    return 0


def said(found: Exported) -> str:
    """What was written, and how it was compared."""
    size = f"{found.bytes / 1e6:.1f} MB" if found.bytes >= 1e6 else f"{found.bytes / 1000:.0f} kB"
    written = f"written to {found.path}, {size}"
    if found.largest_difference is None:
        return f"{written}: the task alone, for metafilm.Task.load"
    return (
        f"{written}; largest difference of logits on {found.images} images, support and random: "
        f"{found.largest_difference:.1e}"
    )
