"""A learner as a folder in the Hugging Face Hub's layout, and on the Hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metafilm import film
from metafilm.errors import CheckpointError, MetafilmError, RunError, first_line
from metafilm.publishing.card import card
from metafilm.storage import hub, tensorfile
from metafilm.storage.atomic import atomic_write
from metafilm.storage.models import FORMAT
from metafilm.storage.run import RunDirectory

Records = Sequence[Mapping[str, Any] | str | Path]


def save_pretrained(
    network: Any,
    folder: str | Path,
    results: Records = (),
    license: str | None = None,
    name: str | None = None,
) -> Path:
    """See :meth:`metafilm.MetaFiLM.save_pretrained`."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise MetafilmError(f"{folder} is a file; give a folder to write the learner's files into")
    run = RunDirectory(folder)
    if run.config_file.exists() or run.checkpoint_file.exists():
        raise RunError(f"{folder} holds a run, whose weights would be overwritten; choose another folder")
    _require_ours(folder)
    text = card(network, name or str(folder), _read(results), license, _of_run(network.source))
    folder.mkdir(parents=True, exist_ok=True)
    network.save(folder / hub.WEIGHTS)
    atomic_write(folder / "config.json", (json.dumps(described(network), indent=2) + "\n").encode())
    atomic_write(folder / "README.md", text.encode())
    return folder


def _require_ours(folder: Path) -> None:
    """Raise MetafilmError where the folder has a card, a description or weights of something else that a
    learner's would overwrite."""
    try:
        ours = json.loads((folder / "config.json").read_text()).get("library_name") == "metafilm"
    except (OSError, ValueError, AttributeError):
        ours = False
    known = ["config.json", "README.md", *([] if _is_learner(folder / hub.WEIGHTS) else [hub.WEIGHTS])]
    if not ours and (found := [name for name in known if (folder / name).exists()]):
        raise MetafilmError(
            f"{folder} has a {' and a '.join(found)} of something else, which would be overwritten; give "
            "another folder"
        )


def _is_learner(path: Path) -> bool:
    """Whether a file says that metafilm wrote it."""
    try:
        return tensorfile.read(path)[1].get("format") == FORMAT
    except (CheckpointError, OSError):
        return False


def push_to_hub(
    network: Any,
    repository: str,
    results: Records = (),
    license: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload a metafilm learner",
) -> str:
    """See :meth:`metafilm.MetaFiLM.push_to_hub`."""
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(network, folder, results, license, repository)
        return hub.pushed(Path(folder), repository, message, private, token)


def described(network: Any) -> dict[str, Any]:
    """``config.json``, for people and the Hub: what builds the learner stands in the weights file itself."""
    backbone = network.backbone
    return {
        "library_name": "metafilm",
        "architectures": [type(network).__name__],
        "backbone": getattr(backbone, "arguments", {}).get("name", type(backbone).__name__),
        "head": type(network.head).__name__,
        "encoder": None if network.encoder is None else type(network.encoder).__name__,
        "image_shape": list(network.image_shape),
        "film_sites": film.sites(backbone),
        "fingerprint": network.fingerprint(),
        "settings": None if network.config is None else network.config.to_dict(),
    }


def _read(results: Records) -> list[Mapping[str, Any]]:
    """Records, and files of one record or a list of them."""
    records: list[Mapping[str, Any]] = []
    for one in results:
        if isinstance(one, Mapping):
            records.append(one)
            continue
        try:
            found = json.loads(Path(one).read_text())
        except (OSError, ValueError) as error:
            raise MetafilmError(
                f"{one} can't be read as results ({error}); give what metafilm eval --json wrote"
            ) from error
        found = found if isinstance(found, list) else [found]
        if not all(isinstance(record, dict) for record in found):
            raise MetafilmError(f"{one} holds no results; give what metafilm eval --json wrote")
        records += found
    return records


def _of_run(source: Any) -> Any:
    """What the run said of its training, where the learner came from its directory and it is readable."""
    if not isinstance(source, str) or not Path(source).is_dir():
        return None
    try:
        return RunDirectory(source).read_results()
    except (ValueError, RecursionError) as error:
        raise MetafilmError(
            f"{source}/results.json is damaged ({first_line(error)}); delete it, and the same "
            "metafilm train writes it anew"
        ) from error
