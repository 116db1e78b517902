"""What `fit` and `predict` are given: pictures in any form, scikit-learn's flat rows, a folder of folders."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data
from torch import Tensor

from episodes.datasets.folder import read_class_folders
from metafilm.errors import MetafilmError


def is_folder(X: Any) -> bool:
    """Whether X names a place instead of holding pictures."""
    return isinstance(X, str | os.PathLike)


def unwrapped(X: Any) -> Any:
    """A table's column of paths or pictures as a list of them; anything else as it is."""
    if hasattr(X, "iloc"):
        only = X.iloc[:, 0] if X.ndim == 2 and X.shape[1] == 1 else X
        if only.ndim == 1 and only.dtype.kind == "O":
            return only.tolist()
    return X


def is_pictures(X: Any) -> bool:
    """Whether X is pictures, and no table of numbers with a row for each."""
    if isinstance(X, Tensor | np.ndarray):
        return X.ndim > 2 or (X.ndim == 1 and getattr(X.dtype, "kind", "") in "OU" and _holds_pictures(X))
    return isinstance(X, list | tuple) and _holds_pictures(X)


def _holds_pictures(X: Any) -> bool:
    if not len(X):
        return True  # none of them
    first = X[0]
    if isinstance(first, list | tuple):  # of lists of rows
        return bool(len(first)) and isinstance(first[0], list | tuple)
    array = isinstance(first, Tensor | np.ndarray) and first.ndim > 1
    return array or isinstance(first, str | os.PathLike) or hasattr(first, "getbands")


def of_folder(X: Any, y: Any, image_shape: tuple[int, ...]) -> tuple[Tensor, np.ndarray]:
    """The pictures of X/<class>/ as uint8 ``[n, C, side, side]``, and the names of their classes.

    Raises:
        MetafilmError: labels besides; EpisodesError: no such folder, or no pictures in it.
    """
    if y is not None:
        raise MetafilmError(
            f"labels besides the folder {os.fspath(X)}: the folders in it are the classes; leave y out, or "
            "give a list of paths"
        )
    images, labels, classes, _, _ = read_class_folders(X, image_shape[0], max(image_shape[1:]))
    return images, np.asarray(classes)[labels.numpy()]


def require_kind(y: np.ndarray, known: np.ndarray) -> None:
    """Raise MetafilmError where one of the two holds words and the other numbers: as one array, numbers would
    become words."""
    kinds = [isinstance(labels.tolist()[0], str) for labels in (y, known) if len(labels)]
    if len(set(kinds)) > 1:
        raise MetafilmError(
            f"y holds {y.tolist()[0]!r}, where the classes known are {known.tolist()[0]!r} and so on; give "
            "labels of the same kind"
        )


def _require_one_kind(y: Any) -> None:
    if isinstance(y, list | tuple) and len({isinstance(one, str) for one in y}) > 1:
        raise MetafilmError("y holds words and numbers; give labels of one kind")


def column(estimator: Any, y: Any) -> np.ndarray:
    """Labels ``[n]``. Raises ValueError: there are none, or they are no column."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None; give a label for "
            "each picture, or a folder of class folders"
        )
    return column_or_1d(y.numpy(force=True) if isinstance(y, Tensor) else np.asarray(y), warn=True)


def _require_several(estimator: Any, X: Any, first: bool) -> None:
    """Raise MetafilmError where X is one picture, which a batch of one is easily mistaken for."""
    if hasattr(X, "getbands"):  # Pillow's
        raise MetafilmError("X is one picture; give a list of pictures: [X]")
    flat = isinstance(X, Tensor | np.ndarray) and X.ndim == 2
    if flat and not first and X.shape[1] != estimator.n_features_in_:
        shape = tuple(estimator.learner_.image_shape[1:])
        if tuple(X.shape) == shape:
            raise MetafilmError(f"X is one picture {list(shape)}; give [n, {shape[0]}, {shape[1]}]: X[None]")


def checked(estimator: Any, X: Any, y: Any = None, *, first: bool, labelled: bool) -> tuple[Any, Any]:
    """X and y as scikit-learn wants them: rows finite, as many columns as before, a label each.

    Args:
        first: whether this is what the columns of later calls are held to.
        labelled: whether labels belong to it.

    Raises:
        ValueError: as scikit-learn's own estimators do; a MetafilmError where y mixes words and numbers, or X
            is one picture.
    """
    _require_several(estimator, X, first)
    y = y.numpy(force=True) if isinstance(y, Tensor) else y
    if labelled:
        _require_one_kind(y)
    if is_pictures(X):
        if labelled:
            y = column(estimator, y)
            check_consistent_length(X, y)
            if y.dtype == object and any(one is None for one in y):
                raise MetafilmError("y holds None; give a label for each picture")
    else:
        if isinstance(X, Tensor):
            X = (X.float() if X.dtype == torch.bfloat16 else X).numpy(force=True)
        options: dict[str, Any] = {"reset": first, "dtype": "numeric"}
        if labelled:
            X, y = validate_data(estimator, X, y, **options)
        else:
            X = validate_data(estimator, X, **options)
    if labelled:
        check_classification_targets(y)
    return X, y
