"""Many adapted tasks served by one network: a forward pass whose rows belong to different tasks.

What a task keeps is a few kilobytes (its deviations, what its head fitted, its classes), so ten thousand of
them fit where a hundred adapted networks would; and because they share every convolution, a batch is
computed once for all of its tasks, each row with its own gains and biases.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metafilm import film
from metafilm.errors import MetafilmError
from metafilm.learner.copies import looks, looks_at_queries
from metafilm.learner.network import SharedNetwork
from metafilm.learner.support import as_pictures
from metafilm.learner.task import Task
from metafilm.serving.kept import Kept, Place
from metafilm.storage import bankfile

PRECISIONS = ("float32", "bfloat16")


class TaskBank:
    """Adapted tasks of one learner, kept compactly and served in mixed batches.

    The learner's weights are taken as they are now, so a learner that is trained further needs a new bank.
    Threads may share a bank: one waits while another adds, removes or predicts.

    Args:
        learner: the learner that the tasks were adapted with.
        batch_size: rows of one forward pass.
        precision: ``float32`` (the learner's own dtype) or ``bfloat16``: that of the backbone's
            convolutions and linear layers; what the tasks keep stays as it is.

    Raises:
        MetafilmError: another precision, or no positive batch size.
    """

    def __init__(self, learner: SharedNetwork, *, batch_size: int = 256, precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise MetafilmError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
        if batch_size < 1:
            raise MetafilmError(f"batch_size {batch_size} must be at least 1")
        self.learner, self.batch_size, self.precision = learner, batch_size, precision
        with film.exclusive(learner.backbone):  # where another thread's pass has put others in their place
            self._network = copy.deepcopy(learner.backbone).eval().requires_grad_(False)
            self._made_of = _versions(learner)
        self._head = copy.deepcopy(learner.head).eval().requires_grad_(False)
        for weight in self._network.parameters():
            if precision == "bfloat16" and weight.dim() > 1 and weight.dtype == torch.float32:
                weight.data = weight.data.bfloat16()
            if weight.dim() == 4:
                # a copy: contiguous() would leave a one-channel weight's strides, by which the convolution
                # chooses its output's, and the first pooling would be many times slower
                like = torch.empty_like(weight, memory_format=torch.channels_last)
                weight.data = like.copy_(weight)
        self._kept = Kept(self._network)

    def _alone(self) -> threading.RLock:
        """The bank's lock, that of its network: rows may move, or become another task's, while it is not
        held."""
        return film.exclusive(self._network)

    def __len__(self) -> int:
        return len(self._kept.places)

    def __contains__(self, identity: object) -> bool:
        return identity in self._kept.places

    def __repr__(self) -> str:
        return f"TaskBank({len(self)} tasks, {self.nbytes} bytes)"

    @property
    def ids(self) -> list[int]:
        """The ids of the tasks held, oldest first."""
        return list(self._kept.places)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that keep the tasks, with the room for more; the shared network is not among
        them.
        """
        with self._alone():
            return self._kept.nbytes

    def add(self, task: Task) -> int:
        """Keep a task; returns its id, which no other task of this bank ever gets.

        Raises:
            MetafilmError: a task of another learner, or of this one's weights at another time.
        """
        return self.extend([task])[0]

    def extend(self, tasks: Iterable[Task]) -> list[int]:
        """Keep several tasks, all or none of them; returns their ids. Raises as :meth:`add`."""
        tasks = list(tasks)
        with film.exclusive(self.learner.backbone):
            now = _versions(self.learner)
        if now != self._made_of:
            raise MetafilmError(
                "the learner's weights have changed since this bank was made of them; make a new bank and "
                "adapt its tasks again"
            )
        for task in tasks:
            if task.learner is not self.learner:
                raise MetafilmError(
                    f"{task!r} was made with another learner than this bank's; adapt it with the bank's "
                    "learner, or Task.load it for that one"
                )
        with self._alone():
            self._kept.require_fitting(tasks)
            return [self._kept.put(task) for task in tasks]

    def remove(self, identity: int) -> None:
        """Forget a task; its room goes to the next one.

        Raises:
            MetafilmError: unknown id.
        """
        with self._alone():
            self._kept.remove(identity)

    def task(self, identity: int) -> Task:
        """The task as it was added, in tensors of its own.

        Raises:
            MetafilmError: unknown id.
        """
        with self._alone():
            return self._kept.task(identity, self.learner)

    def logits(self, images: Tensor, ids: Sequence[int] | Tensor) -> Tensor:
        """Each image through the network of its task.

        Args:
            images: ``[B, C, H, W]`` float in [0, 1] or uint8; for regression x ``[B, features]``.
            ids: B ids, the task of each image, in any order and number.

        Returns:
            ``[B, ways]``, ways the most of any task asked for, -inf beyond a task's own; for regression the
            values ``[B, 1]``. Each row depends on its own image and task alone.

        Raises:
            MetafilmError: another image shape, an unknown id, or not one id per image.
        """
        with self._alone():
            return self._logits(images, ids)[0]

    def _logits(self, images: Tensor, ids: Sequence[int] | Tensor) -> tuple[Tensor, list[Place]]:
        """Also where each image's task is kept; of who holds the lock."""
        learner, device = self.learner, self.learner.mean.device
        if tuple(images.shape[1:]) != learner.image_shape:
            as_pictures(images, learner.image_shape)  # raises
        if len(ids) != len(images):
            raise MetafilmError(f"{len(ids)} ids for {len(images)} images; give the id of each image's task")
        places = self._kept.find(ids)
        widest = max((place.ways for place in places), default=0)
        result = learner.mean.new_full((len(images), widest), -torch.inf)
        with torch.no_grad():
            for start in range(0, len(images), self.batch_size):
                part = places[start : start + self.batch_size]
                found = self._features(images[start : start + self.batch_size], part)
                for ways in {place.ways for place in part}:
                    members = [i for i, place in enumerate(part) if place.ways == ways]
                    kept = torch.tensor([part[i].head_row for i in members], device=device)
                    state = {name: value[kept] for name, value in self._kept.heads[ways].tensors.items()}
                    index = torch.tensor(members, device=device)
                    # each row is a task of one query
                    scores = [self._head.predict(state, look[index].unsqueeze(1)) for look in found]
                    result[start + index, :ways] = torch.stack(scores).mean(0).squeeze(1)
        return result, places

    def _features(self, images: Tensor, places: Sequence[Place]) -> list[Tensor]:
        """``[B, D]`` as the head takes them, of the images and of each of their copies."""
        like = self.learner.mean
        images = as_pictures(images, self.learner.image_shape).to(like.device, like.dtype)
        rows = torch.tensor([place.row for place in places], device=like.device)
        found = []
        for look in looks(images, looks_at_queries(self.learner), self.learner.copy_augment):
            x = self.learner.prepare(look.unsqueeze(0))
            with torch.autocast(like.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                features = film.call(self._network, self._kept.film.tensors, x, rows, self._kept.norm.tensors)
            found.append(self._head.seen(features.to(like.dtype)))
        return found

    def predict(self, images: Tensor, ids: Sequence[int] | Tensor) -> list[Any] | Tensor:
        """The most probable label of each image, as given to ``adapt``; for regression y ``[B, 1]``.
        Arguments and errors as :meth:`logits`.
        """
        with self._alone():
            logits, places = self._logits(images, ids)
        if self.learner.regression:
            return logits
        best = logits.argmax(-1).tolist() if len(logits) else []
        return [place.classes[i] for place, i in zip(places, best, strict=True)]

    def save(self, path: str | Path) -> None:
        """Write all tasks, without the shared network, as one safetensors file.

        Raises:
            MetafilmError: labels that JSON has no form for.
        """
        with self._alone():
            contents = self._kept.contents()
        learner = self.learner
        head = type(self._head).__name__
        bankfile.write(path, contents, head, learner.fingerprint(), learner.predicts_by())

    @classmethod
    def load(
        cls, path: str | Path, learner: SharedNetwork, *, batch_size: int = 256, precision: str = "float32"
    ) -> TaskBank:
        """Read a saved bank for the learner it was made with; ids are kept.

        Raises:
            CheckpointError: missing or damaged file, or tasks that don't fit the learner.
        """
        bank = cls(learner, batch_size=batch_size, precision=precision)
        contents = bankfile.read(
            path,
            bank._kept.shapes(),
            type(bank._head).__name__,
            lambda ways: learner.head.state_shapes(ways, learner.feature_size),
            learner.fingerprint(),
            learner.predicts_by(),
        )
        bank._kept.take(contents, path, learner.mean.device)
        return bank


def _versions(learner: SharedNetwork) -> list[int]:
    """Counts of the changes made in place to each of the learner's tensors."""
    return [
        0 if value.is_inference() else value._version
        for value in (*learner.backbone.state_dict().values(), *learner.head.state_dict().values())
    ]
