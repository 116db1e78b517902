"""What stands in an exported network's file beside the network: how to make its input and read its output."""

from __future__ import annotations

from typing import Any

from metafilm.errors import MetafilmError
from metafilm.learner.pictures.polarity import trained_ground
from metafilm.learner.task import Task
from metafilm.storage import tensorfile

FORMAT, VERSION = "metafilm-network", 1


def described(task: Task) -> dict[str, Any]:
    """For JSON.

    ``format`` and ``version`` of this description; ``classes``, the label of each output; ``image_shape`` of
    one input, ``layout`` of a batch, ``channels`` (``RGB`` or ``grey``), ``value_range``; ``resize``, how
    metafilm brings pictures to the size, which is not in the network; ``normalisation``, which is, so that
    nobody does it twice; ``polarity`` of the pictures trained on, where known; ``fingerprint`` of the shared
    weights, and where they came from (``learner``).

    Raises:
        MetafilmError: labels that JSON has no form for.
    """
    learner = task.learner
    try:
        tensorfile.as_json(task.classes)
    except TypeError as error:
        raise MetafilmError(
            f"labels {task.classes!r} can't be written as JSON; use strings or numbers"
        ) from error
    shape = list(learner.image_shape)
    pictures = len(shape) == 3
    backbone = learner.backbone  # pre-trained networks normalise by themselves
    mean, std = (getattr(backbone, f"pixel_{name}", getattr(learner, name)) for name in ("mean", "std"))
    return {
        "format": FORMAT,
        "version": VERSION,
        "classes": list(task.classes),
        "image_shape": shape,
        "layout": "NCHW" if pictures else "NC",
        "channels": ("grey" if shape[0] == 1 else "RGB") if pictures else None,
        "value_range": [0.0, 1.0] if pictures else None,
        "resize": "shorter side to size, bilinear with antialias, then the middle" if pictures else None,
        "normalisation": {
            "inside": True,
            "mean": mean.flatten().tolist(),
            "std": std.flatten().tolist(),
        },
        "polarity": {"dark": "light on dark", "light": "dark on light", None: None}[trained_ground(learner)],
        "learner": learner.source,
        "fingerprint": task.fingerprint,
    }
