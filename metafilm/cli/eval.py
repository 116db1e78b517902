"""`metafilm eval`: accuracy with its interval, and a record of how it was obtained."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from episodes import dataset as find_data_set
from metafilm.cli.output import to_standard_output
from metafilm.config import Config
from metafilm.config.classes import Classes, classes_again, classes_of
from metafilm.config.settings import REGRESSION_DATA
from metafilm.config.sources import evaluation_source
from metafilm.engine.memory import keep_freed_memory
from metafilm.errors import MetafilmError
from metafilm.evaluation import evaluate
from metafilm.learner.build import load_learner
from metafilm.learner.learner import MetaFiLM
from metafilm.storage.atomic import atomic_write, finite
from metafilm.storage.models import model_path


def record(
    run_or_name: str,
    *,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    episodes: int = 600,
    seed: int = 0,
    split: str = "test",
    steps: int | None = None,
    encoder_support: str = "own",
    dataset: str | None = None,
    scheme: str | None = None,
    style: str | None = None,
    within_group: bool = False,
    precision: str = "float32",
    data_root: Path | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Score a trained learner; arguments as the options of `metafilm eval`.

    Returns what `metafilm.evaluation.evaluate` does (accuracy in percent, ci95, accuracy_by_step,
    gain_by_step, protocol, ...) and dataset, split, scheme, style, ways, shots, queries, seed, checkpoint,
    weights (a fingerprint). Of pictures also `test_classes`, how many classes there are, and
    `training_classes_in_test`, how many of them the weights were trained on (None: not known); turned classes
    count as one. Raises MetafilmError, EpisodesError.
    """
    require_counts(
        ways=(ways, 2), shots=(shots, 1), queries=(queries, 1), episodes=(episodes, 2), steps=(steps, 0)
    )
    keep_freed_memory()
    learner = load_learner(run_or_name)
    config = learner.config or settings_for(run_or_name, learner, dataset)
    if dataset is not None and learner.regression != (dataset in REGRESSION_DATA):
        raise MetafilmError(f"--dataset {dataset} does not fit a learner with head {config.head.name}")
    config = test_config(config, learner, dataset, scheme, within_group)
    source = evaluation_source(
        config, split, data_root, ways=ways, shots=shots, queries=queries, seed=seed, style_name=style
    )
    found = evaluate(
        learner,
        source.sampler,
        episodes,
        steps=steps,
        encoder_support=encoder_support,
        precision=precision,
        progress=progress,
    )
    one = source.sampler.batch([0])
    regression = learner.regression
    described = {
        "dataset": config.data.name if isinstance(config.data.name, str) else list(config.data.name),
        "scheme": config.data.scheme,
        "split": split,
        "style": style or config.episodes.style,
        "within_group": config.episodes.within_group,
        "ways": one.ways,
        "shots": one.support_labels.shape[1] if regression else one.shots,
        "queries": one.query_labels.shape[1] // max(one.ways, 1),
        "seed": seed,
        "checkpoint": str(model_path(run_or_name)),
        "weights": learner.fingerprint(),
        **familiar(learner, classes_of(config, split, source.pools), data_root),
    }
    return described | found


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


def require_counts(**limits: tuple[int | None, int]) -> None:
    """Raise MetafilmError listing every option below its least value."""
    low = [
        f"--{name} must be at least {least}, is {value}"
        for name, (value, least) in limits.items()
        if value is not None and value < least
    ]
    if low:
        raise MetafilmError("; ".join(low))


def test_config(
    config: Config, learner: MetaFiLM, dataset: str | None, scheme: str | None, within_group: bool
) -> Config:
    """The learner's configuration with the data that it is to be tested on."""
    data = config.data
    if dataset is not None and dataset != data.name:
        find_data_set(dataset)  # its error speaks of the data set, not of a setting that nobody gave
        size = None if dataset in REGRESSION_DATA else learner.image_shape[-1]
        data = replace(data, name=dataset, scheme=None, image_size=size)
    if scheme is not None:
        data = replace(data, scheme=scheme)
    episodes = replace(config.episodes, within_group=config.episodes.within_group or within_group)
    return replace(config, data=data, episodes=episodes)


def print_record(found: dict[str, Any], file: Path | None) -> None:
    """The record as a short table on standard output, then whole in `file`; -: whole on standard output.

    Test classes that the weights were trained on are named on standard error.
    """
    text = json.dumps(finite(found), indent=2) + "\n"
    if to_standard_output(file):
        print(text, end="")
    else:
        print_table(found)
    known, total = found.get("training_classes_in_test"), found.get("test_classes")
    if known:
        print(
            f"warning: {known} of the {total} test classes were trained on: this accuracy is not one on new "
            "classes",
            file=sys.stderr,
        )
    if file is not None and not to_standard_output(file):  # a full disk can't take what is printed
        atomic_write(file, text.encode())
        print(f"  written to {file}")


def print_table(found: dict[str, Any]) -> None:
    """Shape, a line per stage, what the encoder was worth, and the same of each domain of a mixture."""
    name = found["dataset"] if isinstance(found["dataset"], str) else " + ".join(found["dataset"])
    shape = f"{found['ways']}-way {found['shots']}-shot" if found["ways"] else f"{found['shots']} points"
    print(f"{name} {found['split']}, {shape}, {found['episodes']} episodes, {found['protocol']}")
    print_scores(found, found["stages"], found["encoder_support"], "  ")
    for domain, part in found.get("by_domain", {}).items():
        print(f"  of {domain}, {part['episodes']} episodes")
        print_scores(part, found["stages"], found["encoder_support"], "    ")
    print(f"  {found['wall_seconds']:.1f} s, {found['checkpoint']}")


def print_scores(found: dict[str, Any], stages: Sequence[str], read: str, indent: str) -> None:
    """A line per stage with its gain over the first, and what the encoder was worth.

    read: whose support set it read.
    """
    measure, unit = ("mse", "") if "mse" in found else ("accuracy", " %")
    digits = 4 if measure == "mse" else 2
    for position, stage in enumerate(stages):
        value, half = found[f"{measure}_by_step"][position], found["ci95_by_step"][position]
        line = f"{indent}{stage_in_words(stage):24} {value:.{digits}f} ± {half:.{digits}f}{unit}"
        print(line + (f"   {gain_in_words(found, position, stages[0])}" if position else ""))
    if "encoder_difference" in found:
        whose = {"other-domain": "a support of another data set"}.get(read, "another task's support")
        print(
            f"{indent}the task encoder read {whose}; with its own: "
            f"{found[f'{measure}_own_support']:.{digits}f}{unit} "
            f"(difference {found['encoder_difference']:+.{digits}f} "
            f"± {found['encoder_difference_ci95']:.{digits}f})"
        )
        if found["encoder_shared_classes"]:
            print(f"{indent}it shares {found['encoder_shared_classes']:.2f} classes with the task on average")


def gain_in_words(found: dict[str, Any], position: int, first: str) -> str:
    """`+8.20 ± 0.90 over before adaptation`; of an error, how much lower it is."""
    gain, half = found["gain_by_step"][position], found["gain_ci95_by_step"][position]
    if "mse" in found:
        return f"lower by {gain:.4f} ± {half:.4f} than {stage_in_words(first)}"
    return f"{gain:+.2f} ± {half:.2f} over {stage_in_words(first)}"


def stage_in_words(stage: str) -> str:
    """`identity`, `encoder`, `step 3` as a reader knows them."""
    words = {"identity": "before adaptation", "encoder": "after the task encoder"}
    return words.get(stage, f"after inner {stage}")
