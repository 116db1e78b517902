"""Pictures of a run, as arrays: a task at a glance, and deviations over the training."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from episodes import Episode

FRAME, GAP = 2, 8  # pixels
WRONG = (214, 39, 40)
DARKEST = (8, 48, 88)
CELL = (12, 6)  # height and width of a value, in pixels


class Judged(NamedTuple):
    """One task, what was said of its queries ``[Q, ways]``, its score in percent, and its labels' names."""

    episode: Episode
    logits: Tensor
    score: float
    names: list[str]


def query_rows(judged: Judged) -> list[list[Any]]:
    """[picture, class, what it was taken for, how surely] of each query."""
    sure, said = judged.logits.softmax(-1).max(-1)
    labels = judged.episode.query_labels[0].tolist()
    return [
        [as_picture(image), judged.names[label], judged.names[other], chance]
        for image, label, other, chance in zip(
            judged.episode.query_images[0], labels, said.tolist(), sure.tolist(), strict=True
        )
    ]


def sheet(judged: Judged) -> np.ndarray:
    """A row per class, its support left of a gap, its queries right; those named wrongly in a red frame.

    Returns:
        ``[height, width, 3]`` uint8.
    """
    task, said = judged.episode, judged.logits.argmax(-1).tolist()
    support: list[list[np.ndarray]] = [[] for _ in range(task.ways)]
    queries: list[list[np.ndarray]] = [[] for _ in range(task.ways)]
    for image, label in zip(task.support_images[0], task.support_labels[0].tolist(), strict=True):
        support[label].append(framed(as_picture(image), False))
    for image, label, other in zip(task.query_images[0], task.query_labels[0].tolist(), said, strict=True):
        queries[label].append(framed(as_picture(image), label != other))
    gap = np.full((support[0][0].shape[0], GAP, 3), 255, np.uint8)
    rows = [np.concatenate([*left, gap, *right], 1) for left, right in zip(support, queries, strict=True)]
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )


def framed(picture: np.ndarray, wrong: bool) -> np.ndarray:
    """``[H, W]`` or ``[H, W, 3]`` in a frame: red where it was named wrongly, else white."""
    colours = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture
    height, width, _ = colours.shape
    whole = np.empty((height + 2 * FRAME, width + 2 * FRAME, 3), np.uint8)
    whole[:] = WRONG if wrong else (255, 255, 255)
    whole[FRAME:-FRAME, FRAME:-FRAME] = colours
    return whole


def as_picture(image: Tensor) -> np.ndarray:
    """``[C, H, W]``, uint8 or float in [0, 1] -> uint8, grey ``[H, W]`` or ``[H, W, 3]``."""
    if image.dtype != torch.uint8:
        image = (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = image.cpu().numpy()
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


def heat(rows: list[list[Any]]) -> np.ndarray:
    """Deviations as colours, white for 0.

    Args:
        rows: [iteration, parameter, size], in order of iterations.

    Returns:
        ``[height, width, 3]`` uint8: a row for a parameter, a column for an iteration.
    """
    iterations = {iteration: i for i, iteration in enumerate(dict.fromkeys(row[0] for row in rows))}
    names = {name: i for i, name in enumerate(dict.fromkeys(row[1] for row in rows))}
    values = np.zeros((len(names), len(iterations)))
    for iteration, name, size in rows:
        values[names[name], iterations[iteration]] = size or 0.0
    share = (values / max(values.max(), 1e-12))[..., None]
    colours = (255 * (1 - share) + np.array(DARKEST) * share).round().astype(np.uint8)
    return colours.repeat(CELL[0], 0).repeat(CELL[1], 1)
