"""One task's network as a file that runs without metafilm: a ``torch.export`` program, or ONNX."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from episodes.progress import Progress
from metafilm.errors import MetafilmError, first_line
from metafilm.learner.support import as_pictures
from metafilm.learner.task import Task
from metafilm.serving import onnxfile
from metafilm.serving.description import described
from metafilm.storage.atomic import atomic_write

SUFFIXES = (".pt2", ".onnx", ".safetensors")
METADATA = "metafilm.json"  # the file in a .pt2 archive that describes it
TOLERANCE = 1e-4  # of a logit, and of the largest logit where that is more than 1
RANDOM_IMAGES, BATCH = 8, 32


class Exported(NamedTuple):
    """A written file: how many ``bytes``, the ``largest_difference`` of its logits from the task's own on so
    many ``images`` (None for a task alone, which has no network in it)."""

    path: Path
    bytes: int
    largest_difference: float | None = None
    images: int = 0


class _Answers(nn.Module):
    """Images ``[B, C, H, W]`` in [0, 1] -> logits and probabilities, ``[B, ways]`` each; for regression the
    values."""

    def __init__(self, network: nn.Module, temperature: float | None) -> None:
        """``temperature``: of the probabilities; None: there are none."""
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        logits = self.network(images)
        return (logits,) if self.temperature is None else (logits, (logits / self.temperature).softmax(-1))


def require_exportable(path: str | Path) -> None:
    """Raise MetafilmError where a file of this name can't be made: another suffix, or a package missing."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise MetafilmError(
            f"{path}: what to write is told by the end of the name, and {suffix or 'no suffix'!r} is none of "
            f"{', '.join(SUFFIXES)} (a torch.export program, ONNX, or the task alone)"
        )
    if suffix == ".onnx":
        onnxfile.require_packages()


def export(task: Task, path: str | Path, examples: Any = None) -> Exported:
    """Write a task's network, adapted, folded and with its head, to a file that needs no metafilm to run.

    ``.pt2`` is a ``torch.export`` program, ``.onnx`` an ONNX model; both take float32 images ``[B, C, H, W]``
    in [0, 1] of any batch size B, normalise them by themselves and give logits and probabilities ``[B,
    ways]`` (for regression the values). The file says what pictures it wants and what its classes are called
    (:func:`metafilm.serving.description.described`): ONNX in the model's metadata, a key each; .pt2 in its
    extra file ``metafilm.json``. ``.safetensors`` is the task alone, as :meth:`Task.save` writes it.

    Before a network's file is put in its place, what was written is read again and run beside the task, on
    the examples and on random images, in batches and one by one.

    Args:
        path: the suffix tells the format.
        examples: pictures as in :meth:`MetaFiLM.adapt`, for that comparison; none need be given.

    Raises:
        MetafilmError: another suffix, a package missing, a network that can't be folded or exported, or one
            whose file gives other logits: by more than 1e-4, and more than 1e-4 of the largest.
    """
    path = Path(path)
    require_exportable(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        task.save(path)
        return Exported(path, path.stat().st_size)
    temperature = None if task.learner.regression else task.temperature
    network = _Answers(task.to_module().cpu().float(), temperature).eval()
    images = _compared(task, examples)
    with warnings.catch_warnings(), Progress("tracing the network", total=3) as bar:
        warnings.simplefilter("ignore")  # of torch's, about its own insides
        program = _program(network, images[:2])
        bar.advance(1, "converting it")
        if suffix == ".pt2":
            content = _archived(program, described(task))
            run = _runner(content)
        else:
            content = onnxfile.converted(program, list(_names(task)), described(task))
            run = onnxfile.runner(content)
        bar.advance(1, "comparing the file")
        largest = _require_equal(path, network, run, images)
        bar.advance()
    atomic_write(path, content)
    return Exported(path, len(content), largest, len(images))


def _names(task: Task) -> Sequence[str]:
    return ("values",) if task.learner.regression else ("logits", "probabilities")


def _compared(task: Task, examples: Any) -> Tensor:
    shape = task.learner.image_shape
    images = torch.rand(RANDOM_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    if examples is None:
        return images
    return torch.cat((as_pictures(examples, shape).cpu().float(), images))


def _program(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad():
            batch = torch.export.Dim("batch")
            return torch.export.export(network, (images.contiguous(),), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch raises whatever the network's code leads it to
        raise MetafilmError(
            f"torch.export can't make a program of this network for any batch size ({first_line(error)}); "
            "keep the task alone (.safetensors), or export a network of another kind"
        ) from error


def _archived(program: torch.export.ExportedProgram, description: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(description)})
    return buffer.getvalue()


def _runner(content: bytes) -> Callable[[Tensor], Tensor]:
    network = torch.export.load(io.BytesIO(content)).module()
    return lambda images: network(images)[0]


def _require_equal(path: Path, network: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """The largest difference between the network's logits and its file's, in batches and one by one."""
    with torch.no_grad():
        expected = torch.cat([network(part)[0] for part in images.split(BATCH)])
        found = torch.cat([run(part) for part in images.split(BATCH)])
        alone = torch.cat([run(image) for image in images[-RANDOM_IMAGES:].split(1)])
    differences = (found - expected).abs().max(), (alone - expected[-RANDOM_IMAGES:]).abs().max()
    largest, scale = float(torch.stack(differences).max()), float(expected.abs().max())
    if not largest <= TOLERANCE * max(1.0, scale):
        raise MetafilmError(
            f"{path} was not written: its logits would differ from the task's by up to {largest:.1e} on "
            f"{len(images)} images, where {TOLERANCE} of the largest, {scale:.1e}, is allowed; try the other "
            "format, .pt2 or .onnx, and report this"
        )
    return largest
