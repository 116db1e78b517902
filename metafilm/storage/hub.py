"""The Hugging Face Hub: a learner's files fetched from a repository, and put into one.

Only ``model.safetensors`` is fetched: tensors, and JSON that says how to build the learner from metafilm's
own classes. No code of a repository is downloaded, let alone run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metafilm.errors import CheckpointError, MetafilmError, first_line

WEIGHTS = "model.safetensors"
_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
REPOSITORY = re.compile(f"({_NAME}/{_NAME})(?:@([A-Za-z0-9_./-]+))?")
"""``user/repo``, perhaps with ``@`` and a branch, tag or commit."""


def is_repository(name: str) -> bool:
    """Whether a name can only mean a repository: ``user/repo`` where no folder ``user`` lies here, in which
    case it is a path that leads nowhere."""
    return bool(REPOSITORY.fullmatch(name)) and not Path(name.partition("/")[0]).exists()


def fetched(name: str) -> Path:
    """The weights file of a repository, from the Hub or from the Hub's cache of this machine.

    Args:
        name: ``user/repo`` or ``user/repo@revision``.

    Raises:
        CheckpointError: no such repository or no weights in it, no access, no network, or a broken transfer.
        MetafilmError: the package huggingface_hub is not installed.
    """
    api = _package(name)
    match = REPOSITORY.fullmatch(name)
    assert match is not None
    where = f"{name}: nothing of that name lies here, and on the Hugging Face Hub"
    with _explained(where, CheckpointError, "check the name, or that you may read it (hf auth login)"):
        return Path(
            api.hf_hub_download(match[1], WEIGHTS, revision=match[2], endpoint=_endpoint(), etag_timeout=10)
        )


def pushed(folder: Path, repository: str, message: str, private: bool | None, token: str | None) -> str:
    """Put all files of a folder into a repository, in one commit; it is made where there is none.

    Returns:
        The commit's address.

    Raises:
        MetafilmError: no name of a repository, huggingface_hub not installed, refused, or no network.
    """
    if not re.fullmatch(f"{_NAME}/{_NAME}", repository):
        raise MetafilmError(f"{repository!r} names no repository of the Hub; write user/repo")
    hub = _package(repository)
    where = f"{repository}, on the Hugging Face Hub:"
    with _explained(where, MetafilmError, "log in with a token that may write (hf auth login)"):
        api = hub.HfApi(endpoint=_endpoint(), token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message, token=token)
        return str(done.commit_url)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")  # as it is now; huggingface_hub looks once, at import


def _package(name: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MetafilmError(
            f"{name}: nothing of that name lies here, and repositories of the Hub need a package: "
            'pip install "metafilm[hub]"'
        ) from error
    return huggingface_hub


@contextmanager
def _explained(where: str, kind: type[MetafilmError], advice: str) -> Iterator[None]:
    """Whatever huggingface_hub and what it stands on raise, as one line that begins with ``where``."""
    try:
        yield
    except MetafilmError:
        raise
    except Exception as error:  # its errors, httpx's, and the system's have no common base
        raise kind(f"{where} {_said(error)}; {advice}") from error


def _said(error: Exception) -> str:
    kinds = {
        "GatedRepoError": "its owner has to grant you access first",
        "RepositoryNotFoundError": "there is no such repository, or it is private",
        "RevisionNotFoundError": "it has no such branch, tag or commit",
        "RemoteEntryNotFoundError": f"it holds no {WEIGHTS}",
        "LocalEntryNotFoundError": "it can't be reached, and nothing of it is kept here",
    }
    because = f" ({first_line(error.__cause__)})" if error.__cause__ is not None else ""
    return kinds.get(type(error).__name__, f"{type(error).__name__}, {first_line(error)}{because}")
