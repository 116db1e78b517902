"""ONNX: a program converted, and run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metafilm.errors import MetafilmError, first_line

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT = "images"


def require_packages() -> None:
    """Raise MetafilmError unless what writes and runs ONNX is installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MetafilmError(f'ONNX files need {", ".join(missing)}: pip install "metafilm[onnx]"')


def converted(
    program: torch.export.ExportedProgram, outputs: list[str], description: dict[str, Any]
) -> bytes:
    """The program as an ONNX file, input ``images``; the description in its metadata, each value as JSON.

    Raises:
        MetafilmError: an operation that ONNX has no form for, or more than 2 GB.
    """
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        # it says how far it is on standard output
        with contextlib.redirect_stdout(io.StringIO()):
            made = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=outputs, verbose=False
            )
        assert made is not None  # no file name was given: the program comes back
        model: Any = made.model_proto
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        for key, value in description.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, json.dumps(value)
        return model.SerializeToString()
    except Exception as error:  # the exporter raises whatever the network leads it to
        raise MetafilmError(
            f"this network can't be written as ONNX ({first_line(error)}); write a torch.export program, .pt2"
        ) from error
    finally:
        log.setLevel(level)


def runner(content: bytes) -> Callable[[Tensor], Tensor]:
    """The file's first output for images, by ONNX Runtime on the CPU.

    Raises:
        MetafilmError: ONNX Runtime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds, which have no common base
        raise MetafilmError(
            f"ONNX Runtime refuses the network ({first_line(error)}); write a torch.export program, .pt2"
        ) from error
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])
