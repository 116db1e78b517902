"""`metafilm predict`: a few of the user's own pictures per class, and then any others."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from episodes.datasets.folder import read_class_folders
from episodes.files.images import SUFFIXES, is_named_as_picture, read_image, read_images
from episodes.files.root import expanded, printable
from metafilm.cli.text.output import require_counts, tell
from metafilm.engine.device import DeviceName, device_named
from metafilm.errors import MetafilmError
from metafilm.learner.build import load_learner
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.pictures import Recipe
from metafilm.learner.task import Task


def predict(
    run_or_name: str,
    support: Path,
    query: Path,
    steps: int | None = None,
    invert: str = "auto",
    json_file: Path | None = None,
    task_file: Path | None = None,
    reject: float | None = None,
    report_file: Path | None = None,
    device: DeviceName = "auto",
) -> int:
    """Adapt to the support pictures, classify the query pictures, print a table (with `json_file` -: JSON),
    then write the files asked for.

    Unreadable pictures are named on standard error and skipped. Raises MetafilmError, EpisodesError.
    """
    require_counts(steps=(steps, 0))
    learner = load_learner(run_or_name, device_named(device))
    examples = read_support(learner, run_or_name, support, invert)
    pictures = Pictures(learner, query, examples)
    skipped = [*examples.skipped, *pictures.skipped]
    tell_skipped(skipped)
    task = learner.adapt(examples.images, examples.labels, steps=steps, checked=True)
    predicted = pictures.predicted(task, reject)
    found: dict[str, Any] = {
        "checkpoint": str(run_or_name),
        "classes": task.classes,
        "inverted": examples.recipe.inverted,
        "reject": reject,
        **predicted,
        "skipped": as_records(skipped),
    }
    text = json.dumps(found, indent=2) + "\n"
    writes: list[Callable[[], object]] = []
    if task_file is not None:
        writes.append(partial(task.save, task_file))
    if report_file is not None:
        writes.append(partial(write_report, report_file, found, task, examples, pictures))
    tell(text, json_file, partial(print_table, found), *writes)
    return 0


def write_report(
    file: Path, found: dict[str, Any], task: Task, examples: "Examples", pictures: "Pictures"
) -> None:
    """The page of what was said; the pictures that were read are read again in colour, for people."""
    from metafilm.report import nearest, prediction_report, write

    near = nearest(task, examples.images, pictures.images)
    shown = in_colour(examples.files), in_colour(pictures.files)
    write(file, prediction_report(found, near, examples.labels, *shown))
    print(f"written to {file}", file=sys.stderr)


def in_colour(files: list[Path]) -> Tensor:
    """Thumbnails uint8 [N, 3, H, W], one a file. Raises EpisodesError where one can't be read any more."""
    from metafilm.report.predictions import THUMB

    return torch.from_numpy(read_images(files, lambda file: read_image(file, 3, THUMB)))


UNKNOWN = "unknown"  # what the table says of a picture of none of the classes
Skipped = list[tuple[Path, str]]
"""Files that could not be read, and why."""


class Examples(NamedTuple):
    """The support pictures as the learner wants them, their labels and files, the recipe for the other
    pictures, and what was skipped."""

    images: Tensor
    labels: list[str]
    files: list[Path]
    recipe: Recipe
    skipped: Skipped


def read_support(learner: MetaFiLM, name: str, support: Path, invert: str) -> Examples:
    """The pictures of a folder per class. Warns where they are inverted. Raises MetafilmError,
    EpisodesError."""
    if learner.regression or len(learner.image_shape) != 3:
        raise MetafilmError(f"{name} learned functions, not pictures; use a run on pictures")
    channels, size = learner.image_shape[0], learner.image_shape[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the unreadable ones come back in the list too
        images, labels, classes, files, skipped = read_class_folders(support, channels, size)
    images, recipe = learner.preprocess(images, invert=invert)
    return Examples(images, [classes[i] for i in labels.tolist()], files, recipe, skipped)


class Pictures:
    """Pictures to classify, in class folders or not, brought to the learner's form as the support was. Tells
    on standard error of those that are examples too."""

    def __init__(self, learner: MetaFiLM, folder: Path, examples: Examples) -> None:
        channels, size = learner.image_shape[0], learner.image_shape[-1]
        self.folder = folder
        self.files, images, self.skipped = read_pictures(folder, channels, size)
        self.images, _ = learner.preprocess(images, recipe=examples.recipe)
        tell_known(examples.files, self.files)

    def predicted(self, task: Task, reject: float | None = None) -> dict[str, Any]:
        """`predictions`, a record a picture; where some lie in a class's folder, `accuracy` and how many are
        `labelled`. With `reject` the prediction is None where a picture is of none of the classes."""
        probabilities = task.predict_proba(self.images)
        known = [True] * len(self.files) if reject is None else task.known(self.images, reject).tolist()
        rows = [
            describe(file, self.folder, task.classes, row, familiar)
            for file, row, familiar in zip(self.files, probabilities, known, strict=True)
        ]
        known = [row for row in rows if row["class"] is not None]
        if not known:
            return {"predictions": rows}
        right = sum(row["class"] == row["prediction"] for row in known)
        return {"predictions": rows, "accuracy": 100 * right / len(known), "labelled": len(known)}


def tell_skipped(skipped: Skipped) -> None:
    """Name the files on standard error."""
    for file, reason in skipped:
        print(f"skipped {printable(file)}: {reason}", file=sys.stderr)


def tell_known(examples: list[Path], pictures: list[Path]) -> None:
    """Warn of pictures to classify that were learned from, as where one of the folders lies in the other."""
    learned = {file.resolve() for file in examples}
    if known := sum(file.resolve() in learned for file in pictures):
        print(
            f"warning: {known} of the {len(pictures)} pictures to classify are examples too: how well they "
            "are named says nothing of new pictures; keep --support and --query apart",
            file=sys.stderr,
        )


def as_records(skipped: Skipped) -> list[dict[str, str]]:
    return [{"file": printable(file), "reason": reason} for file, reason in skipped]


def read_pictures(
    folder: Path, channels: int, size: int
) -> tuple[list[Path], Tensor, list[tuple[Path, str]]]:
    """All pictures below `folder` but what is hidden (.name): (files, uint8 [N, channels, size, size],
    skipped (file, reason))."""
    folder = expanded(folder)
    if not folder.is_dir():
        raise MetafilmError(f"no folder {folder}: give one that holds the pictures to classify")
    files, images, skipped = [], [], []
    for file in sorted(below(folder, set(), skipped)):
        try:
            images.append(read_image(file, channels, size))
        except Exception as error:  # decoders raise whatever they like on a damaged file
            skipped.append((file, f"{type(error).__name__}: {error}"))
        else:
            files.append(file)
    if not images:
        what = (
            f"{len(skipped)} pictures, none readable" if skipped else f"no pictures ({', '.join(SUFFIXES)})"
        )
        raise MetafilmError(f"{folder} holds {what}; give a folder of pictures to classify")
    return files, torch.from_numpy(np.stack(images)), skipped


def below(folder: Path, seen: set[Path], skipped: list[tuple[Path, str]]) -> Iterator[Path]:
    """What has a picture's name below `folder`, through links to other folders too, as a class's folder may
    be one. No folder is read twice, by whatever names: `seen` are those that were; `skipped` takes those that
    can't be."""
    place = folder.resolve()
    if place in seen:
        return
    seen.add(place)
    try:
        found = sorted(folder.iterdir(), key=lambda path: (path.is_symlink(), path))  # its own name first
    except OSError as error:
        skipped.append((folder, f"{type(error).__name__}: {error.strerror}"))
        return
    for path in found:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from below(path, seen, skipped)
        # Pipes, devices and links that lead nowhere too: reading them says what they are, so none is missed.
        elif is_named_as_picture(path):
            yield path


def describe(
    file: Path, query: Path, classes: list[str], row: Tensor, familiar: bool = True
) -> dict[str, Any]:
    """One picture's record; `class` is the folder it lies in, where that is one of the classes."""
    best = int(row.argmax())
    folder = file.parent.name if file.parent != query else None
    return {
        "file": printable(file),
        "prediction": classes[best] if familiar else None,
        "probability": float(row[best]),
        "class": folder if folder in classes else None,
        "probabilities": {name: float(value) for name, value in zip(classes, row, strict=True)},
    }


def print_table(found: dict[str, Any]) -> None:
    """A line a picture, and how many are right of those whose class is known."""
    width = max(len(row["file"]) for row in found["predictions"])
    names = max(len(str(name)) for name in (*found["classes"], UNKNOWN))
    for row in found["predictions"]:
        wrong = row["class"] is not None and row["class"] != row["prediction"]
        note = f"   (lies in {row['class']})" if wrong else ""
        said = UNKNOWN if row["prediction"] is None else row["prediction"]
        sure = f"{100 * row['probability']:5.1f} %"
        if row["prediction"] is None:
            sure = f"(else {max(row['probabilities'], key=row['probabilities'].get)}, {sure.strip()})"
        print(f"{row['file']:{width}}  {said:{names}}  {sure}{note}")
    if "labelled" in found:
        print(f"{found['accuracy']:.1f} % of the {found['labelled']} pictures in a class's folder are right")
