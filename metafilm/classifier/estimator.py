"""FewShotClassifier: a few pictures of each class, by scikit-learn's verbs."""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import Tensor, nn

from metafilm.classifier import file
from metafilm.classifier.examples import (
    checked,
    column,
    is_folder,
    is_pictures,
    of_folder,
    require_kind,
    unwrapped,
)
from metafilm.classifier.learners import from_bytes, opened, to_bytes
from metafilm.engine.device import DeviceName, device_named
from metafilm.errors import CheckpointError, MetafilmError
from metafilm.learner.build import is_pretrained
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.pictures import Recipe
from metafilm.learner.task import Task
from metafilm.storage.atomic import atomic_write

OF_SCIKIT_LEARN = ("_sklearn_output_config", "_metadata_request")  # what its set_... methods keep
STEPS = 5  # of a pre-trained network, where nothing else is said


class FewShotClassifier(ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, BaseEstimator):
    """A classifier that learns from a few pictures of each class, by adapting a network's FiLM deviations.

    Pictures may come as arrays or tensors ``[n, H, W]``, ``[n, C, H, W]`` or ``[n, H, W, C]``, as flat rows
    ``[n, H * W]``, as lists of PIL pictures or of paths; and `fit` and `score` take a folder of class folders
    without labels. They are brought to what the weights were trained on
    (:meth:`metafilm.MetaFiLM.preprocess`); whether light and dark change places is decided by the examples
    given to `fit`.

    Args:
        learner: name of shipped weights, a run directory, a ``.safetensors`` file; ``lite0``, ``timm:NAME``
            or ``torchvision:NAME``; or a :class:`metafilm.MetaFiLM`.
        weights: of ``timm:NAME`` and ``torchvision:NAME``: a file; None: from the library's hub.
        image_size: side of the pictures in such a network; None: 96, or where it takes no other size its own.
            Its own is better for photographs, and slower.
        steps: inner steps; None: 5 for such a network, else as the learner was trained.
        gate: whether held-out examples decide how many of the steps are taken; None: as the learner has it,
            and such networks have one.
        invert: ``auto``, ``yes`` or ``no``: exchange light and dark.
        reject: share of pictures of known classes that `predict` may take for unknown, between 0 and 1, so
            that it can say None of pictures of other classes; for weights that were calibrated, as
            ``omniglot-conv4`` is (``metafilm calibrate``). None: every picture gets a label.
        device: ``cpu``, ``cuda``, or ``auto``, a GPU where there is one; None: the processor. A
            :class:`metafilm.MetaFiLM` stays where it lies, which ``cpu`` or ``cuda`` must name; out of a
            pickle it comes to the device named here.

    Attributes:
        learner_: the learner.
        task_: the examples' :class:`metafilm.Task`.
        film_: its deviations, name -> ``[C]``.
        classes_: the labels, sorted.
        recipe_: how pictures are brought to the learner's form (:class:`metafilm.learner.pictures.Recipe`).
        n_features_in_: numbers in one picture: columns of a flat row, else pixels times channels of what the
            learner sees.
    """

    classes_: np.ndarray
    task_: Task
    recipe_: Recipe
    learner_: MetaFiLM
    n_features_in_: int

    def __init__(
        self,
        learner: Any = "omniglot-conv4",
        *,
        weights: str | Path | None = None,
        image_size: int | None = None,
        steps: int | None = None,
        gate: bool | None = None,
        invert: str = "auto",
        reject: float | None = None,
        device: DeviceName | None = None,
    ) -> None:
        self.learner = learner
        self.weights = weights
        self.image_size = image_size
        self.steps = steps
        self.gate = gate
        self.invert = invert
        self.reject = reject
        self.device: DeviceName | None = device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn classes from examples, and forget any others.

        Args:
            X: n pictures, or a folder of class folders.
            y: n labels, words or numbers; None with a folder.

        Raises:
            MetafilmError, a ValueError: no pictures, one class alone, unknown weights; says what to do. The
                classifier is then as one that was never fitted.
            EpisodesError: a folder without pictures.
        """
        vars(self).pop("task_", None)
        self._require_parameters()
        self.learner_ = self._learner()
        X, y = self._read(X, y, first=True)
        images, self.recipe_ = self.learner_.preprocess(X, invert=self.invert)
        return self._adapt(images, y)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> Self:
        """Learn from more examples, of the same classes or of new ones, besides those known already.

        Args:
            X, y: as of :meth:`fit`, which the first call is.
            classes: labels that are to be expected, as scikit-learn has it: y may hold no others. A class
                counts from its first example on.

        Raises:
            MetafilmError, EpisodesError: see :meth:`fit`.
        """
        if not hasattr(self, "task_"):
            self._require_among(y, classes)
            return self.fit(X, y)
        X, y = self._read(X, y, first=False)
        require_kind(y, self.classes_)
        self._require_among(y, classes)
        images, _ = self.learner_.preprocess(X, recipe=self.recipe_)
        before, images = self._images, images.cpu()
        if before.dtype != images.dtype:
            before, images = (self.learner_.unit(part) for part in (before, images))
        known = self.classes_[self._labels.numpy()]
        return self._adapt(torch.cat((before, images)), np.concatenate((known, y)))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each picture, ``[n]``; with ``reject`` an array of objects, None for
        pictures that are like none of the classes."""
        named = self._prepared(X, "logits").argmax(1)
        if self.reject is None:
            return self.classes_[named]
        found = self.classes_[named].astype(object)
        found[~self._prepared(X, "known", float(self.reject))] = None
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities ``[n, classes]`` float64, columns in the order of `classes_`."""
        return self._prepared(X, "predict_proba").astype(np.float64)

    def transform(self, X: Any) -> np.ndarray:
        """Features under the task's deviations, ``[n, D]`` float32, for a classifier of one's own."""
        return self._prepared(X, "embed")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The share of pictures named rightly, None wrong unless y has it too; X may be a folder of class
        folders, without y."""
        check_is_fitted(self, "task_")
        if is_folder(X):
            X, y = of_folder(X, y, self.learner_.image_shape)
        if self.reject is None:
            return super().score(X, y, sample_weight)
        X, y = unwrapped(X), column(self, y)
        check_consistent_length(X, y, sample_weight)
        return float(np.average(self.predict(X) == y, weights=sample_weight))

    @property
    def film_(self) -> dict[str, Tensor]:
        """The task's deviations."""
        check_is_fitted(self, "task_")
        return self.task_.film

    def to_module(self) -> nn.Module:
        """A plain network: pictures as `learner_.preprocess` gives them, floats in [0, 1] ``[B, C, H, W]``,
        to logits ``[B, classes]``. See :meth:`metafilm.Task.to_module`."""
        check_is_fitted(self, "task_")
        return self.task_.to_module()

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier, its examples with it but not the shared network nor the device, as a
        safetensors file.

        Raises:
            MetafilmError: a learner that was made in memory; save it first, and name its file.
        """
        check_is_fitted(self, "task_")
        parameters = self.get_params(deep=False) | {"device": None}  # another machine has others
        if isinstance(self.learner, MetaFiLM):
            if self.learner.source is None:
                raise MetafilmError(
                    "this classifier's learner was made in memory, and its file could not say which it was; "
                    "save it (learner.save(PATH)) and use FewShotClassifier(PATH)"
                )
            parameters["learner"] = self.learner.source
        atomic_write(path, file.dumps(self._fitted(), parameters))

    @classmethod
    def load(cls, path: str | Path, device: DeviceName | None = None) -> Self:
        """Read what :meth:`save` wrote, to a device as in the arguments above; nothing in it runs as code.

        Raises:
            CheckpointError: no such classifier, damaged, or the learner it names has other weights now.
        """
        if not Path(path).is_file():
            raise CheckpointError(f"{path}: no such file; give one that FewShotClassifier.save wrote")
        content = Path(path).read_bytes()
        try:
            found = cls(**file.parameters_of(content, str(path)))
        except TypeError as error:
            raise CheckpointError(
                f"{path} has parameters of another metafilm ({error}); fit it again"
            ) from error
        found.device = device
        found._take(file.loads(content, str(path), found._learner()))
        return found

    # What pickle and joblib keep: the parameters, and bytes of safetensors files.

    def __getstate__(self) -> dict[str, Any]:
        parameters, learner = self.get_params(deep=False), None
        if isinstance(self.learner, MetaFiLM):
            parameters["learner"], learner = None, to_bytes(self.learner)
        fitted = file.dumps(self._fitted(), {}) if hasattr(self, "task_") else None
        own = {name: value for name, value in vars(self).items() if name in OF_SCIKIT_LEARN}
        return {"parameters": parameters, "learner": learner, "fitted": fitted, **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parameters, learner, fitted = (state.pop(name) for name in ("parameters", "learner", "fitted"))
        vars(self).update({"device": None} | parameters | state)  # older ones had none
        if learner is not None:
            self.learner = from_bytes(*learner).to(device_named(self.device or "cpu"))
        if fitted is not None:
            self._take(file.loads(fitted, "the pickled classifier", self._learner()))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    @property
    def _n_features_out(self) -> int:
        return self._prepared(torch.zeros(1, *self.learner_.image_shape), "embed").shape[1]

    def _require_parameters(self) -> None:
        if self.steps is not None and (not isinstance(self.steps, int | np.integer) or self.steps < 0):
            raise MetafilmError(f"steps is {self.steps!r}; give a whole number from 0 on, or None")
        if self.gate is not None and not isinstance(self.gate, bool | np.bool_):
            raise MetafilmError(f"gate is {self.gate!r}; give True, False or None")
        if self.reject is not None and not isinstance(self.reject, Real):
            raise MetafilmError(f"reject is {self.reject!r}; give a share between 0 and 1, or None")

    def _learner(self) -> MetaFiLM:
        return opened(self.learner, self.weights, self.image_size, self.device)

    def _read(self, X: Any, y: Any, first: bool) -> tuple[Any, np.ndarray]:
        """Pictures and labels as they are given, folders read."""
        X = unwrapped(X)
        if is_folder(X):
            X, y = of_folder(X, y, self.learner_.image_shape)
        else:
            X, y = checked(self, X, y, first=first, labelled=True)
        if first and is_pictures(X):
            self.n_features_in_ = int(np.prod(self.learner_.image_shape))
            vars(self).pop("feature_names_in_", None)
        return X, y

    def _adapt(self, images: Tensor, y: np.ndarray) -> Self:
        classes, labels = np.unique(y, return_inverse=True)
        steps = STEPS if self.steps is None and is_pretrained(self.learner) else self.steps
        names = classes.tolist()
        if not names:
            raise MetafilmError("there are no pictures; give a few of each class")
        if len(names) < 2:
            raise MetafilmError(
                f"the {len(labels)} pictures are all of one class, {names[0]!r}; give examples of two "
                "classes at least"
            )
        task = self.learner_.adapt(
            images, [names[i] for i in labels.tolist()], steps=steps, gate=self.gate, checked=True
        )
        if self.reject is not None:
            task.known(images[:1], float(self.reject))  # its errors come now
        self.task_, self.classes_ = task, classes
        self._images, self._labels = images.cpu(), torch.from_numpy(labels)
        return self

    def _prepared(self, X: Any, method: str, *more: Any) -> np.ndarray:
        """What a method of the task makes of pictures."""
        check_is_fitted(self, "task_")
        if is_folder(X):
            raise MetafilmError(
                f"{X} is the name of one file or folder; give a list of pictures: [{str(X)!r}]"
            )
        X, _ = checked(self, unwrapped(X), first=False, labelled=False)
        images, _ = self.learner_.preprocess(X, recipe=self.recipe_)
        return getattr(self.task_, method)(images, *more).numpy(force=True)

    def _require_among(self, y: Any, classes: Any) -> None:
        if classes is None or y is None:
            return
        if unknown := sorted(set(np.unique(y).tolist()) - set(np.unique(classes).tolist()), key=str):
            raise MetafilmError(f"y holds {unknown[0]!r}, which is not among classes; name every label there")

    def _fitted(self) -> file.Fitted:
        columns = getattr(self, "feature_names_in_", None)
        return file.Fitted(
            self.task_,
            self.recipe_,
            self._images,
            self._labels,
            self.classes_,
            None if columns is None else list(columns),
            self.n_features_in_,
        )

    def _take(self, fitted: file.Fitted) -> None:
        self.task_, self.recipe_, self.classes_ = fitted.task, fitted.recipe, fitted.classes
        self._images, self._labels = fitted.images, fitted.labels
        self.n_features_in_, self.learner_ = fitted.features, fitted.task.learner  # type: ignore[assignment]
        if fitted.columns is not None:
            self.feature_names_in_ = np.asarray(fitted.columns, object)
