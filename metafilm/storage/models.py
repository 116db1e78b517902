"""Weights as safetensors files that say how to rebuild their learner.

A file's metadata holds the format's version, the whole configuration and the arguments of
`metafilm.learner.build_learner`, and the names of the classes that were trained on, all as JSON: nothing in
it runs as code.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metafilm.config.classes import Classes
from metafilm.config.config import Config
from metafilm.config.messages import close_match
from metafilm.errors import CheckpointError
from metafilm.storage import hub, tensorfile
from metafilm.storage.calibration import KEY, Calibration
from metafilm.storage.run import RunDirectory

FORMAT = "metafilm"
VERSION = 1


def save_model(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: Config,
    build: Mapping[str, Any],
    classes: Sequence[Classes] | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Write the tensors of `state` with `config` and `build`, the keyword arguments of `build_learner`
    besides the config (plain numbers, strings and lists only).

    `classes`: those trained on, so that an evaluation can tell which of its own were; None: not known.
    `calibration`: of these very weights, where there is one.
    """
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(config.to_dict()),
        "build": json.dumps(dict(build)),
    }
    if classes is not None:
        metadata["classes"] = json.dumps([asdict(part) for part in classes])
    if calibration is not None:
        metadata[KEY] = calibration.to_json()
    tensorfile.write(path, state, metadata)


def read_model(path: str | Path) -> tuple[dict[str, Tensor], Config, dict[str, Any]]:
    """What `save_model` wrote: (tensors on the CPU, config, build). Raises CheckpointError or ConfigError."""
    tensors, metadata = tensorfile.read(path)
    if metadata.get("format") != FORMAT:
        kind = metadata.get("format")
        todo = "; a task is read by metafilm.Task.load, with its learner" if kind == "metafilm-task" else ""
        raise CheckpointError(
            f"{path} is not a metafilm model: its metadata has format {kind!r}, expected {FORMAT!r}{todo}"
        )
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(
            f"{path} has format version {metadata.get('version')}, this metafilm reads {VERSION}; "
            "install the metafilm that wrote it"
        )
    try:
        settings, build = json.loads(metadata["config"]), json.loads(metadata["build"])
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has damaged metadata ({error}); train or download it again") from error
    return tensors, Config.from_dict(settings, source=f"{path} (the config inside)"), build


def adapts(path: str | Path) -> str | None:
    """How far a model's learner adapts, its ``evaluation.adapt``; None where there is no file that says."""
    try:
        return json.loads(tensorfile.read_metadata(path)["config"])["evaluation"]["adapt"]
    except (CheckpointError, KeyError, TypeError, ValueError, RecursionError):
        return None


def read_classes(path: str | Path) -> tuple[Classes, ...] | None:
    """The classes that a model was trained on; None where its file doesn't say. Raises CheckpointError."""
    listed = tensorfile.read_metadata(path).get("classes")
    if listed is None:
        return None
    try:
        parts = [Classes(**part) for part in json.loads(listed)]
        return tuple(replace(part, names=tuple(map(str, part.names))) for part in parts)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has a damaged list of classes ({error}); train or download it again"
        ) from error


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy `tensors` into `module`, exactly. Raises CheckpointError listing every name that is missing or
    unknown and every shape that differs, and then leaves `module` as it was."""
    expected = module.state_dict()
    retired = {
        f"{prefix}.{name}" for prefix, part in module.named_modules() for name in getattr(part, "retired", ())
    }
    tensors = {name: value for name, value in tensors.items() if name not in retired}
    problems = [f"{name} is missing, expected {shape(expected[name])}" for name in expected.keys() - tensors]
    problems += [
        f"{name} has no place in the network, is {shape(tensors[name])}" for name in tensors.keys() - expected
    ]
    problems += [
        f"{name} is {shape(tensors[name])}, expected {shape(expected[name])}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    if problems:
        listed = "\n  ".join(sorted(problems))
        raise CheckpointError(f"{path} does not fit the network:\n  {listed}")
    module.load_state_dict(dict(tensors))


def shape(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def shipped_models() -> dict[str, Path]:
    """Weights that come with the package, by name."""
    folder = Path(__file__).parent / "shipped"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def model_path(path_or_name: str | Path) -> Path:
    """The weights file meant by a run directory or another folder that holds one, a file, a shipped name, or
    a repository of the Hugging Face Hub, from which it is fetched. Raises CheckpointError."""
    path = Path(path_or_name)
    if path.is_dir():
        run = RunDirectory(path)
        if run.model_file.is_file():
            return run.model_file
        if run.config_file.is_file():
            raise CheckpointError(
                f"{path} holds a run without weights yet (no {run.model_file.name}); train it on"
            )
        raise CheckpointError(f"{path} is no run directory: it has no {run.model_file.name}")
    if path.is_file():
        return path
    shipped = shipped_models()
    if str(path_or_name) in shipped:
        return shipped[str(path_or_name)]
    if hub.is_repository(str(path_or_name)):
        return hub.fetched(str(path_or_name))
    hint = close_match(str(path_or_name), shipped)
    raise CheckpointError(
        f"{path_or_name} is neither a run directory, a .safetensors file nor shipped weights{hint}"
    )
