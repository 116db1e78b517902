"""The model card of a published learner: what it is, what it has seen, how well it does, how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from episodes.episode import shape_in_words
from metafilm import film
from metafilm.errors import MetafilmError

NEEDED = ("dataset", "split", "ways", "shots", "episodes", "protocol", "stages", "ci95_by_step")


def card(
    network: Any, name: str, records: Sequence[Mapping[str, Any]], license: str | None, training: Any
) -> str:
    """README.md of a repository: a YAML header that the Hub reads, and a page that people do.

    Args:
        network: a :class:`metafilm.MetaFiLM`.
        name: what ``from_pretrained`` will be given: ``user/repo``, or a folder.
        records: as ``metafilm eval --json`` writes them.
        license: the Hub's name of it, such as ``mit``; None: the card says that none is stated.
        training: the run's ``results.json``, or None.

    Raises:
        MetafilmError: a record that lacks what it should say.
    """
    for record in records:
        if missing := [key for key in (*NEEDED, f"{_measure(record)}_by_step") if key not in record]:
            raise MetafilmError(
                f"a result lacks {', '.join(missing)}; give records that metafilm eval --json wrote"
            )
        stages, values, intervals = (
            record[key] for key in ("stages", f"{_measure(record)}_by_step", "ci95_by_step")
        )
        numbers = [value for value in (*values, *intervals) if isinstance(value, int | float)]
        if not len(stages) == len(values) == len(intervals) or len(numbers) < 2 * len(stages):
            raise MetafilmError(
                f"a result has the stages {stages}, values {values} and intervals {intervals}; give records "
                "that metafilm eval --json wrote"
            )
    title = name.rpartition("/")[2] or name
    parts = [
        f"---\n{_header(network, title, records, license)}---",
        f"# {title}",
        _what(network),
        "## Use",
        _use(network, name),
        "## Training",
        _training(network, training),
        "## Results",
        _results(records),
        "## Licence",
        f"`{license}`, by the name that the Hub gives licences."
        if license
        else "The author of these weights has not stated a licence.",
    ]
    return "\n\n".join(parts) + "\n"


def _measure(record: Mapping[str, Any]) -> str:
    return "mse" if "mse" in record else "accuracy"


def _task(record: Mapping[str, Any]) -> str:
    return shape_in_words(record["ways"], record["shots"])


def _header(network: Any, title: str, records: Sequence[Mapping[str, Any]], license: str | None) -> str:
    said: dict[str, Any] = {} if license is None else {"license": license}
    said |= {
        "library_name": "metafilm",
        "tags": ["few-shot-learning", "meta-learning", "film", "safetensors"],
    }
    if not network.regression:
        said["pipeline_tag"] = "image-classification"
    if records:
        kind = "tabular-regression" if network.regression else "image-classification"
        results = [
            {
                "task": {"type": kind, "name": _task(r)},
                "dataset": {"type": str(r["dataset"]), "name": str(r["dataset"]), "split": r["split"]},
                "metrics": [{"type": _measure(r), "value": round(float(r[f"{_measure(r)}_by_step"][-1]), 4)}],
            }
            for r in records
            if r.get("encoder_support", "own") == "own"
        ]
        said["model-index"] = [{"name": title, "results": results}]
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True)


def _what(network: Any) -> str:
    sites = film.sites(network.backbone)
    shape = " x ".join(map(str, network.image_shape))
    backbone = getattr(network.backbone, "arguments", {}).get("name", type(network.backbone).__name__)
    adapted = ""
    if network.encoder is not None:
        adapted += " A task encoder predicts them from the support set."
    if network.evaluation_steps:
        adapted += f" Gradient steps on the support set: at most {network.evaluation_steps}."
    if network.stage is not None:
        used = "nothing of this" if network.stage == "identity" else "the encoder alone"
        adapted += f" By itself it uses {used}; the rest has to be asked for (steps, gate)."
    count = sum(value.numel() for value in network.outer_parameters().values())
    return (
        "A few-shot learner of metafilm: shown a few examples of each class, it tells new ones apart. One "
        f"network, {backbone} for inputs of {shape}, is shared by all tasks; a task is "
        f"{2 * sum(sites.values())} FiLM deviations at {len(sites)} sites of it.{adapted} Predictions come "
        f"from a {type(network.head).__name__}. {count:,} learned parameters."
    )


def _use(network: Any, name: str) -> str:
    package = '"metafilm[hub]"' if "/" in name else "metafilm"  # a repository, or weights of the package
    lines = ["import metafilm", "", f'learner = metafilm.MetaFiLM.from_pretrained("{name}")']
    if network.regression:
        lines += ["task = learner.adapt(x, y)", "values = task.predict(more)"]
    else:
        lines += [
            "task = learner.adapt(images, labels)  # floats in [0, 1] or uint8, a few of each class",
            "labels = task.predict(more_images)",
        ]
    return (
        f"```sh\npip install {package}\n```\n\n```python\n" + "\n".join(lines) + "\n```\n\n"
        "Images are normalised inside. The file is safetensors; nothing in it runs as code."
    )


def _training(network: Any, training: Any) -> str:
    said = []
    if origin := getattr(network.backbone, "origin", None):
        said.append(f"The backbone's first weights: `{origin}`.")
    for part in network.trained_on or ():
        said.append(f"Meta-trained on {len(part.names)} classes of `{part.dataset}`, split `{part.split}`.")
    if not network.trained_on and network.config is not None:
        names = ", ".join(f"`{name}`" for name in network.config.data.names)
        said.append(f"Meta-trained on the training classes of {names}.")
    if network.config is not None:
        ways, shots = network.config.episodes.ways, network.config.episodes.shots
        said.append(
            f"Episodes of {_count(ways, 'way')} and {_count(shots, 'shot')}, seed {network.config.seed}."
        )
    if isinstance(training, Mapping) and "training_seconds" in training:
        said.append(
            f"{training['iterations']} iterations in {training['training_seconds'] / 60:.0f} minutes; these "
            f"weights are those of iteration {training['best_iteration']}, chosen on validation classes."
        )
    return " ".join(said) or "No meta-training: the weights are the backbone's own."


def _count(number: Any, what: str) -> str:
    """1 shot, 5 shots, 5 to 20 ways."""
    if isinstance(number, int):
        return f"{number} {what}{'' if number == 1 else 's'}"
    return f"{number[0]} to {number[-1]} {what}s"


def _results(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return "None recorded. `metafilm eval --json` measures them."
    squared = any(_measure(record) == "mse" for record in records)
    what = "mean squared error" if squared else "accuracy in %"
    lines = [f"95 % intervals over episodes; {what}, of every stage of adaptation.", ""]
    lines += ["| data | task | episodes | protocol | by stage |", "|---|---|---|---|---|"]
    for record in records:
        digits = 4 if _measure(record) == "mse" else 2
        stages = zip(
            record["stages"], record[f"{_measure(record)}_by_step"], record["ci95_by_step"], strict=True
        )
        by_stage = ", ".join(f"{stage} {value:.{digits}f} ± {ci:.{digits}f}" for stage, value, ci in stages)
        task = _task(record)
        if (support := record.get("encoder_support", "own")) != "own":
            task += f", the encoder given {support} support"  # a control, to be told from the result
        data = f"{record['dataset']}, {record['split']} classes"
        if (style := record.get("style") or "none") != "none":
            data += f", style {style}"
        lines.append(f"| {data} | {task} | {record['episodes']} | {record['protocol']} | {by_stage} |")
    return "\n".join(lines)
