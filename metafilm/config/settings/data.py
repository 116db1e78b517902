"""Sections that say what tasks are made of."""

from typing import Annotated, Literal

from pydantic import AfterValidator

import episodes
from episodes.transforms import augment as augmentations
from episodes.transforms import styles
from metafilm.config.messages import shown
from metafilm.config.settings.checks import Number, OneOf, Rising, Switch, Text, Whole, above, at_least
from metafilm.config.strict import free, section

REGRESSION_DATA = tuple(name for name, entry in episodes.DATASETS.items() if entry.functions)


def data_sets(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """One data set, written alone or as a list of one, or a mixture of image sets."""
    names = (value,) if isinstance(value, str) else value
    if not names or "" in names:
        raise ValueError(f"must name at least one data set, is {shown(value)}")
    if len(names) > 1 and any(name in REGRESSION_DATA for name in names):
        raise ValueError(f"can't mix images and functions, is {', '.join(names)}")
    return names[0] if len(names) == 1 else value


def some_criteria(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if value == ():
        raise ValueError("is an empty list; write none for tasks of classes")
    return value


@section("data")
class Data:
    """Which images (or functions) tasks are drawn from."""

    name: Annotated[
        Text | tuple[Text, ...], AfterValidator(data_sets), OneOf(episodes.DATASETS, ("folder:",))
    ] = "omniglot"
    """Data set: a name from `metafilm data list`, or folder:PATH; several make a mixture, grey ones then in
    three channels where others have colours."""
    weights: Annotated[tuple[Number, ...] | None, above(0)] = None
    """How often each data set of a mixture is drawn in training, in proportion; empty, and in validation:
    all alike."""
    scheme: Text | None = None
    """Class split, where a data set has several (omniglot: vinyals, lake, lake-val, random); empty: its
    default."""
    image_size: Annotated[Whole | None, at_least(16)] = None
    """Side of the square images in pixels, at least 16; empty: the data set's own."""
    train_split: Text = "train"
    """Split to train on."""
    classes: Annotated[Whole | None, at_least(2)] = None
    """Train on so many classes alone (of a mixture: of each data set), the first of a shuffle by the seed, so
    that those of a smaller number are among those of a larger one; empty: on all."""
    validation_split: Text = "val"
    """Split on which the best weights are chosen."""
    rotated_classes: Switch = False
    """Add every class turned by 90, 180 and 270 degrees as a class of its own, in every split (Omniglot's
    convention since Vinyals et al. 2016; Snell et al. 2017 test so too)."""
    allow_overlap: Switch = free(False)
    """Train even where validation classes are trained on too; their score then says little about new ones."""
    download: Switch = free(False)
    """Fetch the data set if it is not there."""
    in_memory: Switch = free(True)
    """Hold images in memory; false: map them from the cache file."""

    @property
    def names(self) -> tuple[str, ...]:
        """The data sets, one or several."""
        return (self.name,) if isinstance(self.name, str) else self.name


@section("episodes")
class Episodes:
    """The shape of a training task. A range (two numbers, low and high) is drawn anew for each task. What
    may differ between the data sets of a mixture takes one value, or one for each in the order of data.name.
    """

    ways: Annotated[Whole | tuple[Whole, Whole], at_least(2), Rising] = 5
    """Classes in a task, or a range."""
    shots: Annotated[Whole | tuple[Whole, Whole], at_least(1), Rising] = 1
    """Support images per class, or a range."""
    queries: Annotated[Whole, at_least(1)] = 15
    """Query images per class."""
    within_group: Switch | tuple[Switch, ...] = False
    """Draw a task's classes from one group (an alphabet, a superclass); one, or one per data set."""
    criteria: Annotated[Literal["none", "all"] | tuple[Text, ...], AfterValidator(some_criteria)] = "none"
    """Attributes by which tasks sort their images, one drawn for each task, where a data set's images have
    several (criteria, omniglot-criteria): all, or a list of their names; none: by class."""
    rotation: Literal["none", "per-class"] = "none"
    """per-class: each class of a training task is turned by 0, 90, 180 or 270 degrees at random."""
    warp: Switch = False
    """Mirror, slant and bend all images of a training task alike, of every data set: characters that no
    alphabet has."""
    augment: Annotated[Text | tuple[Text, ...], OneOf(augmentations.BY_NAME)] = "none"
    """Augmentation of every training image; one, or one per data set."""
    style: Annotated[Text | tuple[Text, ...], OneOf(styles.BY_NAME)] = "none"
    """Transform drawn once per task and applied to all its images; one, or one per data set."""
