"""Pictures of a run, as arrays: a task at a glance, and deviations over the training."""

from __future__ import annotations

from typing import Any

import numpy as np

from metafilm.training.tracking.worst import Worst

FRAME, GAP = 2, 8  # pixels
WRONG = (214, 39, 40)
DARKEST = (8, 48, 88)
CELL = (12, 6)  # height and width of a value, in pixels


def sheet(worst: Worst) -> np.ndarray:
    """A row per class, its support left of a gap, its queries right; wrong ones in a red frame.

    Returns:
        ``[height, width, 3]`` uint8.
    """
    by_class: dict[str, list[np.ndarray]] = {}
    for query in worst.queries:
        by_class.setdefault(query.label, []).append(framed(query.picture, query.named != query.label))
    rows = []
    for examples, queries in zip(worst.support, by_class.values(), strict=True):
        left = [framed(picture, False) for picture in examples]
        gap = np.full((left[0].shape[0], GAP, 3), 255, np.uint8)
        rows.append(np.concatenate([*left, gap, *queries], 1))
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
