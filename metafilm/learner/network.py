"""The shared network: pictures in, features and predictions out, under any tasks' deviations."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from metafilm import film, norms, publishing
from metafilm.errors import MetafilmError
from metafilm.film import FilmDict
from metafilm.heads import Head
from metafilm.publishing import Records
from metafilm.storage.calibration import Calibration


class SharedNetwork(nn.Module):
    """A backbone with FiLM layers and a head, and what images must go through before them.

    Args:
        backbone: a network with FiLM layers inserted (:func:`metafilm.film.insert`); ``[B, ...]`` in,
            ``[B, D]`` out. Norms of PyTorch's own in it stay in evaluation mode, whatever the learner's: in
            training mode tasks would see each other (:func:`metafilm.norms.convert` makes them ours).
        head: from :mod:`metafilm.heads`.
        image_shape: ``(C, H, W)``, or ``(features,)`` for vectors.
        mean, std: per-channel statistics of the training images in [0, 1], taken off inside: callers pass
            plain images.

    Attributes:
        source: name or path it was loaded from, or the arguments of :meth:`metafilm.MetaFiLM.from_backbone`
            that build it again; None where neither is known.
        trained_on: the classes that it was trained on (:class:`metafilm.config.classes.Classes`), where its
            file names them.
        calibration: what validation tasks said of its probabilities, where its file says it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        *,
        image_shape: tuple[int, ...],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        channels = image_shape[0]
        self.backbone, self.head = backbone, head
        # a task's own, substituted in every pass: the outer loop's gradient has no business there
        for deviation in film.parameters(backbone).values():
            deviation.requires_grad_(False)
        self.image_shape = tuple(image_shape)
        self.autocast = False  # bf16 autocast of the backbone, while the outer loop trains with it
        shape = (-1, *[1] * (len(image_shape) - 1))
        for name, values, plain in (("mean", mean, 0.0), ("std", std, 1.0)):
            given = [plain] * channels if values is None else [float(value) for value in values]
            self.register_buffer(name, torch.tensor(given).view(shape))
        self.whole = False  # whether tasks have weights of their own, beside deviations
        self.copies, self.copy_augment, self.query_copies = 0, "shift", 0  # see metafilm.learner.copies
        # what the outer loop lays under the deviations of the tasks at hand, while it trains with noise
        self.underlay: Callable[[FilmDict], FilmDict] | None = None
        self.config: Any = None  # the config it was built from, where there is one; goes with the weights
        self.source: str | dict[str, Any] | None = None
        self.trained_on: Any = None
        self.calibration: Calibration | None = None
        self._evaluating = Evaluating()
        self._fingerprint: tuple[list[tuple[int, int]], str] | None = None

    mean: Tensor
    std: Tensor
    copies: int
    copy_augment: str
    query_copies: int

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path | dict[str, Any]) -> Any:
        """A trained learner in evaluation mode.

        Args:
            name_or_path: a run directory, a folder that :meth:`save_pretrained` wrote, a ``.safetensors``
                file that metafilm wrote, the name of weights that ship with the package
                (``"omniglot-conv4"``), or a repository of the Hugging Face Hub, ``"user/repo"`` or
                ``"user/repo@revision"``, of which no code is run; or a learner's ``source``.

        Raises:
            MetafilmError: nothing there, or not a learner's weights; says what was found and expected.
        """
        from metafilm.learner.build import load_learner  # the one import upwards: it builds learners

        return load_learner(name_or_path)

    def save_pretrained(
        self, folder: str | Path, *, results: Records = (), license: str | None = None
    ) -> Path:
        """Write the learner as the Hugging Face Hub lays out a model: ``model.safetensors``, ``config.json``
        and ``README.md``, a model card.

        Args:
            folder: made where there is none.
            results: what the card says of its accuracy: records that ``metafilm eval --json`` wrote, or files
                of them.
            license: of the weights, by the Hub's name (``mit``); None: the card says that none is stated.

        Returns:
            The folder, which :meth:`from_pretrained` reads.

        Raises:
            MetafilmError: a file in the folder's place, a run in it, results that are none, or a part that a
                file can't rebuild (:meth:`metafilm.MetaFiLM.save`).
        """
        return publishing.save_pretrained(self, folder, results, license)

    def push_to_hub(
        self,
        repository: str,
        *,
        results: Records = (),
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Put what :meth:`save_pretrained` writes into a repository of the Hugging Face Hub, in one commit.

        Args:
            repository: ``"user/repo"``; made where there is none.
            results, license: as in :meth:`save_pretrained`.
            private: of a repository that is made; None: as the account has it.
            token: that may write; None: the one this machine is logged in with.

        Returns:
            The commit's address.

        Raises:
            MetafilmError: as :meth:`save_pretrained`; huggingface_hub is not installed, the Hub refuses or
                can't be reached.
        """
        return publishing.push_to_hub(self, repository, results, license, private, token)

    @property
    def regression(self) -> bool:
        """Whether labels are real values instead of classes."""
        return self.head.regression

    @property
    def feature_size(self) -> int | None:
        """D of the backbone's features, where the backbone says it."""
        size = getattr(self.backbone, "out_features", None)
        return size if isinstance(size, int) else None

    @property
    def protocol(self) -> str:
        """``"transductive"`` when queries see each other at evaluation, else ``"inductive"``."""
        return "transductive" if norms.mode_of(self.backbone) == "transductive" else "inductive"

    @property
    def reads_support(self) -> bool:
        """Whether the support goes through the adapted network together with the queries."""
        return self.head.uses_support or norms.mode_of(self.backbone) == "support"

    def outer_parameters(self) -> dict[str, nn.Parameter]:
        """All that the outer loop learns: everything but the deviations, which are a task's own."""
        own = {f"backbone.{name}" for name in film.parameters(self.backbone)}
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name not in own and parameter.requires_grad
        }

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of any module; the network's own, whatever pass another thread has under way."""
        with film.exclusive(self.backbone):
            return super().state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; a frozen backbone, and norms of PyTorch's own, stay in evaluation."""
        super().train(mode)
        if mode:
            if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
                self.backbone.eval()
            for layer in norms.foreign(self.backbone):
                layer.eval()
        return self

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode for the time of the context; of several threads the last one out restores it."""
        self._evaluating.enter(self)
        try:
            yield
        finally:
            self._evaluating.leave(self)

    @contextmanager
    def in_precision(self, name: str) -> Iterator[None]:
        """The backbone in ``bfloat16`` (autocast) or in the weights' own precision for the time of the
        context."""
        before, self.autocast = self.autocast, name == "bfloat16"
        try:
            yield
        finally:
            self.autocast = before

    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell these weights (backbone, head, image statistics) from any others: a
        task belongs to the weights that it was adapted with. Deviations are no part of it. Safe to call from
        several threads."""
        own = {f"backbone.{name}" for name in film.widths(self.backbone)}
        parts = {
            name: value
            for name, value in self.state_dict().items()
            if name.partition(".")[0] in ("backbone", "head", "mean", "std") and name not in own
        }
        versions = [
            (value.data_ptr(), -1 if value.is_inference() else value._version) for value in parts.values()
        ]
        if self._fingerprint is None or self._fingerprint[0] != versions:
            digest = hashlib.sha256()
            for name, value in sorted(parts.items()):
                digest.update(name.encode())
                digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
            self._fingerprint = versions, digest.hexdigest()[:16]
        return self._fingerprint[1]

    def predicts_by(self) -> dict[str, Any]:
        """What decides the predictions of a task that is adapted, beside weights, deviations and the head's
        state: settings that two learners of the same weights may differ in."""
        transform = self.head.transform
        return {
            "transform": [] if transform is None else list(transform.steps),
            "pooling": getattr(self.backbone, "pooling", None),
            "query_copies": self.query_copies,
            "copy_augment": self.copy_augment if self.query_copies else None,
        }

    def calibrated(self) -> Calibration | None:
        """The calibration, where there is one and it is of the weights as they are now."""
        found = self.calibration
        return found if found is not None and found.weights == self.fingerprint() else None

    def prepare(self, images: Tensor) -> Tensor:
        """``[T, n, C, H, W]`` in [0, 1], or uint8 -> normalised ``[T·n, C, H, W]``, channels last."""
        if tuple(images.shape[2:]) != self.image_shape:
            raise MetafilmError(
                f"images have shape {tuple(images.shape[2:])}, this learner expects {self.image_shape}; "
                f"resize them first"
            )
        x = (self.unit(images.flatten(0, 1)) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def unit(self, images: Tensor) -> Tensor:
        """uint8 pixels as floats in [0, 1]; floats as they are."""
        return images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images

    def stem(self, x: Tensor, tasks: int, *, support: int | None = None, record: bool = False) -> Any:
        """What the backbone makes of prepared images before its first FiLM site, to be passed to
        :meth:`features` in their place as often as wanted; the images themselves where it has no such part.
        """
        if self.whole or not hasattr(self.backbone, "stem"):
            return x
        with norms.layout(tasks, support, record), self._precision(x):
            if torch.compiler.is_compiling():
                return self.backbone.stem(x)  # type: ignore[operator]
            with film.exclusive(self.backbone):
                return self.backbone.stem(x)  # type: ignore[operator]

    def features(
        self, x: Any, deviations: FilmDict, tasks: int, *, support: int | None = None, record: bool = False
    ) -> Tensor:
        """Backbone features.

        Args:
            x: prepared images ``[T·n, ...]``, or their :meth:`stem` under the same tasks and support.
            deviations: ``[T, C]`` each; {} is δ = 0. Those of whole weights (``inner.adapts all``), ``[T,
                ...]`` by the weights' names, are added to the network's.
            tasks: T.
            support: how many of each task's n rows are support rows, which come first; None: all.
            record: note the normalisation statistics for the running averages.

        Returns:
            ``[T, n, D]``, in the weights' precision.
        """
        if self.whole and len(film.only(deviations)) < len(deviations):
            return self._one_by_one(x, deviations, tasks, support, record)
        with norms.layout(tasks, support, record), self._precision(self.mean):
            features = film.call(self.backbone, self.underlay(deviations) if self.underlay else deviations, x)
        return features.to(self.mean.dtype).unflatten(0, (tasks, -1))

    def _one_by_one(
        self, x: Tensor, deviations: FilmDict, tasks: int, support: int | None, record: bool
    ) -> Tensor:
        """:meth:`features` of tasks that have weights of their own: T passes."""
        with film.exclusive(self.backbone):
            own = dict(self.backbone.named_parameters())
        found = []
        for task, images in enumerate(x.chunk(tasks)):
            mine = {name: value[task : task + 1] for name, value in film.only(deviations).items()}
            weights = {
                name: own[name] + value[task] for name, value in deviations.items() if name not in mine
            }
            with norms.layout(1, support, record), self._precision(self.mean):
                found.append(film.call(self.backbone, mine, images, weights=weights))
        return torch.stack(found).to(self.mean.dtype)

    def _precision(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast)

    def predict_prepared(
        self, x: Any, deviations: FilmDict, labels: Tensor, ways: int, support: int, *, record: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Predictions ``[T, Q, ways]``, and the features ``[T, n, D]`` that they come from.

        Args:
            x: prepared images (or their stem), of which the first ``support`` rows of each task are the
                support's.
            deviations: ``[T, C]`` each.
            labels: ``[T, S]`` of the support.
            record: in training, note the normalisation statistics.
        """
        record = self.training and record
        features = self.features(x, deviations, labels.shape[0], support=support or None, record=record)
        return self.judged(features, labels, ways, support), features

    def judged(self, features: Tensor, labels: Tensor, ways: int, support: int) -> Tensor:
        """Predictions ``[T, Q, ways]`` of features ``[T, n, D]``, of which the first ``support`` of each task
        are the support's, of labels ``[T, S]``."""
        seen = self.head.seen(features)
        state = self.head.fit(seen[:, :support], labels, ways)
        return self.head.predict(state, seen[:, support:])


class Evaluating:
    """How many threads want evaluation mode at present, and the modes to restore after the last of them, each
    module's its own.

    A learner that serves is used from many threads; each call switching the mode by itself would put the
    learner back into training mode in the middle of another's pass. A copy of a learner starts afresh.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._training: list[nn.Module] = []

    def __deepcopy__(self, memo: object) -> Evaluating:
        return Evaluating()

    def __reduce__(self) -> tuple[type[Evaluating], tuple[()]]:
        return Evaluating, ()

    def enter(self, module: nn.Module) -> None:
        with self._lock:
            if self._inside == 0 and module.training:
                self._training = [part for part in module.modules() if part.training]
                module.eval()
            self._inside += 1

    def leave(self, module: nn.Module) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for part in self._training:
                    part.training = True
                self._training = []


def join(first: Tensor, second: Tensor, tasks: int) -> Tensor:
    """``[T·a, ...]``, ``[T·b, ...]`` -> ``[T·(a + b), ...]``, each task's rows of the first before its rows
    of the second."""
    both = torch.cat((first.unflatten(0, (tasks, -1)), second.unflatten(0, (tasks, -1))), 1).flatten(0, 1)
    return both.contiguous(memory_format=torch.channels_last) if both.dim() == 4 else both
