"""`metafilm eval`: accuracy with its interval, and a record of how it was obtained."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from episodes import dataset as find_data_set
from metafilm import norms
from metafilm.cli.text.output import require_counts, tell, to_standard_output
from metafilm.cli.text.table import print_table
from metafilm.config import Config
from metafilm.config.classes import Classes, classes_again, classes_of
from metafilm.config.settings import REGRESSION_DATA
from metafilm.config.sources import Source, evaluation_source, on_data
from metafilm.engine.device import DeviceName, device_named
from metafilm.engine.memory import keep_freed_memory
from metafilm.errors import MetafilmError
from metafilm.evaluation import centre, evaluate, overlap
from metafilm.heads import HEADS, BlendHead
from metafilm.learner import overridden
from metafilm.learner.build import load_learner
from metafilm.learner.learner import MetaFiLM
from metafilm.storage.atomic import finite
from metafilm.storage.models import model_path


def record(run_or_name: str, *, dataset: str | None = None, **options: Any) -> dict[str, Any]:
    """Score a trained learner on one data set; options, result and errors as of :func:`records`."""
    return records(run_or_name, (dataset,), **options)[0]


def records(
    run_or_name: str,
    datasets: Sequence[str | None] = (None,),
    *,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    episodes: int = 600,
    seed: int = 0,
    split: str = "test",
    steps: int | None = None,
    encoder_support: str = "own",
    scheme: str | None = None,
    style: str | None = None,
    within_group: bool = False,
    rotated_classes: str | None = None,
    precision: str = "float32",
    gate: bool | None = None,
    device: DeviceName = "auto",
    allow_overlap: bool = False,
    data_root: Path | None = None,
    progress: bool | None = None,
    per_task: list[list[float]] | None = None,
    **overrides: Any,
) -> list[dict[str, Any]]:
    """Score a trained learner on each of these data sets (None: its own); arguments as the options of
    `metafilm eval`, the same for all data sets; overrides: those of `metafilm.learner.overridden`.
    per_task takes, for each data set, each task's score at the last stage.

    Returns for each what `metafilm.evaluation.evaluate` does (accuracy in percent, ci95, accuracy_by_step,
    gain_by_step, protocol, ...) and dataset, split, scheme, style, rotated_classes (whether turned copies are
    classes of their own), ways, shots, queries, seed, checkpoint, weights (a fingerprint of them as trained);
    head, transform, blend, blend_weight, pooling, norm, copies, copy_augment, query_copies: how tasks were
    judged.
    Of pictures also `test_classes`, how many classes there are, and `training_classes_in_test`, how many of
    them the weights were trained on (None: not known); turned classes count as one. `overlap` says why the
    backbone's first weights are known to have seen the classes, where they have and `allow_overlap` is given.
    Raises MetafilmError, EpisodesError.
    """
    require_counts(
        ways=(ways, 2), shots=(shots, 1), queries=(queries, 1), episodes=(episodes, 2), steps=(steps, 0)
    )
    if twice := sorted({str(name) for name in datasets if list(datasets).count(name) > 1}):
        raise MetafilmError(f"--dataset names {', '.join(twice)} more than once; name each data set once")
    keep_freed_memory()
    learner = load_learner(run_or_name)
    weights = learner.fingerprint()
    learner = learner.to(device_named(device))
    learner = judged_by(learner, run_or_name, data_root, **overrides)
    configs, seen, sources = [], [], []
    for dataset in datasets:
        config = learner.config or settings_for(run_or_name, learner, dataset)
        if dataset is not None and learner.regression != (dataset in REGRESSION_DATA):
            raise MetafilmError(f"--dataset {dataset} does not fit a learner with head {config.head.name}")
        config = test_config(config, learner, dataset, scheme, within_group)
        require_meaning(
            config, ways=ways, scheme=scheme, style=style, within_group=within_group or None,
            rotated_classes=rotated_classes,
        )  # fmt: skip
        if rotated_classes is not None:
            config = replace(config, data=replace(config.data, rotated_classes=rotated_classes == "yes"))
        configs.append(config)
        seen.append(overlap(learner, named(configs[-1])))
        if seen[-1] and not allow_overlap:
            raise MetafilmError(
                f"{seen[-1]}: this would be no accuracy on new classes; with --allow-overlap it is measured, "
                "and the record says so"
            )
    for config in configs:
        sources.append(
            evaluation_source(
                config,
                split,
                data_root,
                ways=ways,
                shots=shots,
                queries=queries,
                seed=seed,
                style_name=style,
                channels=None if learner.regression else learner.image_shape[0],
            )
        )
    found = []
    for position, (config, source) in enumerate(zip(configs, sources, strict=True)):
        each: list[float] = []
        scores = evaluate(
            learner,
            source.sampler,
            episodes,
            steps=steps,
            encoder_support=encoder_support,
            precision=precision,
            gate=gate,
            progress=progress,
            other_domains=[other.sampler for other in sources[:position] + sources[position + 1 :]],
            per_task=each,
        )
        if per_task is not None:
            per_task.append(each)
        described = description(config, source, learner, split, style, seed, data_root)
        described |= {"weights": weights, **judging(learner)}
        described |= {"checkpoint": str(model_path(run_or_name))}
        found.append(described | ({"overlap": seen[position]} if seen[position] else {}) | scores)
    return found


def require_meaning(config: Config, **given: Any) -> None:
    """Raise MetafilmError naming options that say nothing of the configuration's tasks."""
    if config.data.name in REGRESSION_DATA:
        none, tasks = set(given), "tasks of functions, which have neither images nor classes"
    elif config.episodes.criteria != "none":
        none = {"style", "within_group", "rotated_classes"}
        tasks = "tasks sorted by a criterion, which it would change"
    else:
        return
    said = [option(name) for name, value in given.items() if value is not None and name in none]
    if said:
        raise MetafilmError(f"{' '.join(said)} is not for {tasks}; leave it out")


def judged_by(learner: MetaFiLM, run_or_name: str, data_root: Path | None, **overrides: Any) -> MetaFiLM:
    """The learner as the overrides want it; itself where there are none.

    Raises MetafilmError: see `metafilm.learner.overridden`.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    if given.get("transform") == ("none",):
        given["transform"] = ()
    if not given:
        return learner
    if learner.config is None:
        raise MetafilmError(
            f"{run_or_name} was saved without settings, so that {' '.join(map(option, given))} can't be given"
        )
    learner = overridden(learner, **given)
    transform = learner.head.transform
    if transform is not None and transform.centres:
        config = learner.config
        centre(learner, evaluation_source(config, config.data.train_split, data_root).sampler)
    return learner


def option(name: str) -> str:
    """An override's name as the command line has it."""
    return "--head-scale" if name == "scale" else f"--{name.replace('_', '-')}"


def judging(learner: MetaFiLM) -> dict[str, Any]:
    """How the learner judges a task, in the words of the settings."""
    names = {kind: name for name, kind in HEADS.items()}
    head, transform = learner.head, learner.head.transform
    blend, weight = None, None
    if isinstance(head, BlendHead):
        head, blend, weight = head.first, names[type(head.second)], head.weight
    return {
        "head": names.get(type(head), type(head).__name__),
        "transform": [] if transform is None else list(transform.steps),
        "blend": blend,
        "blend_weight": weight,
        "pooling": getattr(learner.backbone, "pooling", None),
        "norm": norms.mode_of(learner.backbone),
        "copies": learner.copies,
        "copy_augment": learner.copy_augment if learner.copies or learner.query_copies else None,
        "query_copies": learner.query_copies,
    }


def named(config: Config) -> tuple[str, ...]:
    """The data sets of a configuration."""
    return (config.data.name,) if isinstance(config.data.name, str) else config.data.name


def description(
    config: Config,
    source: Source,
    learner: MetaFiLM,
    split: str,
    style: str | None,
    seed: int,
    data_root: Path | None,
) -> dict[str, Any]:
    """What a record says of the tasks and the weights, besides their scores."""
    one = source.sampler.batch([0])
    return {
        "dataset": config.data.name if isinstance(config.data.name, str) else list(config.data.name),
        "scheme": config.data.scheme,
        "split": split,
        "style": style or config.episodes.style,
        "within_group": config.episodes.within_group,
        "rotated_classes": config.data.rotated_classes,
        "ways": one.ways,
        "shots": one.support_labels.shape[1] if learner.regression else one.shots,
        "queries": one.query_labels.shape[1] // max(one.ways, 1),
        "seed": seed,
        **familiar(learner, classes_of(config, split, source.pools), data_root),
    }


def settings_for(run_or_name: str, learner: MetaFiLM, dataset: str | None) -> Config:
    """Defaults, on the data set named, for a learner built without settings. Raises MetafilmError."""
    if dataset is None:
        raise MetafilmError(
            f"{run_or_name} was saved without settings, which would name its data; say --dataset"
        )
    size = None if learner.regression else learner.image_shape[-1]
    return replace(Config(), data=replace(Config().data, name=dataset, image_size=size))


def familiar(learner: MetaFiLM, tested: Sequence[Classes], data_root: Path | None) -> dict[str, int | None]:
    """How many classes there are in the test, and how many of them the weights were trained on (None: neither
    their file nor the data that their settings name tell). Empty for functions."""
    if not tested:
        return {}
    classes = learner.trained_on
    if classes is None and learner.config is not None:
        classes = classes_again(learner.config, data_root)
    known = None if classes is None else sum(len(part.known_to(classes)) for part in tested)
    return {"training_classes_in_test": known, "test_classes": sum(len(part.names) for part in tested)}


def test_config(
    config: Config, learner: MetaFiLM, dataset: str | None, scheme: str | None, within_group: bool
) -> Config:
    """The learner's configuration with the data that it is to be tested on."""
    if dataset is not None and dataset != config.data.name:
        find_data_set(dataset)  # its error speaks of the data set, not of a setting that nobody gave
        size = None if dataset in REGRESSION_DATA else learner.image_shape[-1]
        config = on_data(config, dataset, size)
    data = config.data if scheme is None else replace(config.data, scheme=scheme)
    episodes = replace(config.episodes, within_group=within_group or config.episodes.within_group)
    return replace(config, data=data, episodes=episodes)


def print_records(records: Sequence[dict[str, Any]], file: Path | None) -> None:
    """Each record as a short table on standard output, then whole in `file`; -: whole on standard output. One
    is written as an object, several as a list of them.

    Test classes that the weights were trained on are named on standard error.
    """
    whole = records[0] if len(records) == 1 else records
    text = json.dumps(finite(whole), indent=2) + "\n"

    def show() -> None:
        for found in records:
            print_table(found)

    tell(text, file, show, partial(warn_of_known_classes, records))
    if file is not None and not to_standard_output(file):
        print(f"  written to {file}")


def warn_of_known_classes(records: Sequence[dict[str, Any]]) -> None:
    """Say on standard error which accuracies are not ones on new classes."""
    for found in records:
        for caution in cautions(found):
            print(f"warning: {caution}", file=sys.stderr)


def cautions(found: Mapping[str, Any]) -> list[str]:
    """Why a record's accuracy is not one on new classes; nothing where it is."""
    known, total = found.get("training_classes_in_test"), found.get("test_classes")
    said = []
    if known:
        said.append(
            f"{known} of the {total} test classes were trained on: this accuracy is not one on new classes"
        )
    return [*said, found["overlap"]] if found.get("overlap") else said
