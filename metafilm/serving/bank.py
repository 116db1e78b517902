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
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metafilm import film, norms
from metafilm.errors import CheckpointError, MetafilmError
from metafilm.learner.copies import looks, looks_at_queries
from metafilm.learner.gate import Report
from metafilm.learner.network import SharedNetwork
from metafilm.learner.support import as_pictures
from metafilm.learner.task import Task
from metafilm.serving.table import Table
from metafilm.storage import bankfile

PRECISIONS = ("float32", "bfloat16")


class _Place(NamedTuple):
    """Where a task is kept: its row among all tasks, and its row among the heads of that many ways."""

    row: int
    ways: int
    head_row: int
    classes: list[Any]
    shots: list[int] | None
    report: Report | None


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
        own = film.parameters(self._network)
        self._film = Table({name: value.new_zeros(0, len(value)) for name, value in own.items()})
        self._norm = Table(
            {
                name: module.weight.new_zeros(0, 2, module.num_features)
                for name, module in self._network.named_modules()
                if isinstance(module, norms.Norm) and module.mode in ("support", "transductive")
            }
        )
        self._heads: dict[int, Table] = {}
        self._places: dict[int, _Place] = {}
        self._next = 0

    def _alone(self) -> threading.RLock:
        """The bank's lock, that of its network: rows may move, or become another task's, while it is not
        held."""
        return film.exclusive(self._network)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, identity: object) -> bool:
        return identity in self._places

    def __repr__(self) -> str:
        return f"TaskBank({len(self)} tasks, {self.nbytes} bytes)"

    @property
    def ids(self) -> list[int]:
        """The ids of the tasks held, oldest first."""
        return list(self._places)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that keep the tasks, with the room for more; the shared network is not among
        them.
        """
        return sum(table.nbytes for table in (self._film, self._norm, *self._heads.values()))

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
        with self._alone():
            for task in tasks:
                self._check(task)
            self._require_alike(tasks)
            return [self._put(task) for task in tasks]

    def _put(self, task: Task) -> int:
        state = {name: value[0] for name, value in task.state.items()}
        ways = len(next(iter(state.values())))
        if ways not in self._heads:
            self._heads[ways] = Table({name: v.new_zeros(0, *v.shape) for name, v in state.items()})
        row = self._film.put(task.film)
        if self._norm.tensors:
            # one row a task in both, given and freed together
            self._norm.put(task.statistics)
        head_row = self._heads[ways].put(state)
        self._places[self._next] = _Place(row, ways, head_row, list(task.classes), task.shots, task.report)
        self._next += 1
        return self._next - 1

    def _check(self, task: Task) -> None:
        if task.learner is not self.learner:
            raise MetafilmError(
                f"{task!r} was made with another learner than this bank's; adapt it with the bank's learner, "
                "or Task.load it for that one"
            )
        for kind, values, table in (
            ("deviations", task.film, self._film),
            ("statistics", task.statistics, self._norm),
        ):
            found = {name: tuple(value.shape) for name, value in values.items()}
            expected = {name: tuple(value.shape[1:]) for name, value in table.tensors.items()}
            if found != expected:
                raise MetafilmError(
                    f"the task's {kind} have shapes {found}, this learner's have {expected}; adapt it again"
                )

    def _require_alike(self, tasks: Iterable[Task]) -> None:
        """Tasks of as many ways share a table: what the head keeps of them must have one shape."""
        known = {
            ways: {name: tuple(value.shape[1:]) for name, value in table.tensors.items()}
            for ways, table in self._heads.items()
        }
        for task in tasks:
            found = {name: tuple(value.shape[1:]) for name, value in task.state.items()}
            expected = known.setdefault(next(iter(found.values()))[0], found)
            if found != expected:
                raise MetafilmError(
                    f"the head keeps {found} of {task!r}, and {expected} of others here with as many "
                    "classes: it keeps every support image; give all of a bank's tasks as many, or use head "
                    "reconstruction"
                )

    def remove(self, identity: int) -> None:
        """Forget a task; its room goes to the next one.

        Raises:
            MetafilmError: unknown id.
        """
        with self._alone():
            place = self._find([identity])[0]
            del self._places[int(identity)]
            self._film.free.append(place.row)
            if self._norm.tensors:
                self._norm.free.append(place.row)
            self._heads[place.ways].free.append(place.head_row)

    def task(self, identity: int) -> Task:
        """The task as it was added, in tensors of its own.

        Raises:
            MetafilmError: unknown id.
        """
        with self._alone():
            place = self._find([identity])[0]
            state = {k: v.unsqueeze(0) for k, v in self._heads[place.ways].get(place.head_row).items()}
            deviations, statistics = self._film.get(place.row), self._norm.get(place.row)
        return Task(
            self.learner,
            deviations,
            state,
            statistics,
            list(place.classes),
            report=place.report,
            shots=place.shots,
        )

    def _find(self, ids: Iterable[int] | Tensor) -> list[_Place]:
        # of a tensor or an array plain numbers
        numbers: list[int] = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else list(ids)
        try:
            return [self._places[identity] for identity in numbers]
        except (KeyError, TypeError):
            unknown = next(i for i in numbers if i not in self.ids)
            raise MetafilmError(
                f"no task with the id {unknown!r} among the {len(self)} held; use an id that add returned "
                "and remove has not taken"
            ) from None

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

    def _logits(self, images: Tensor, ids: Sequence[int] | Tensor) -> tuple[Tensor, list[_Place]]:
        """Also where each image's task is kept; of who holds the lock."""
        learner, device = self.learner, self.learner.mean.device
        if tuple(images.shape[1:]) != learner.image_shape:
            as_pictures(images, learner.image_shape)  # raises
        if len(ids) != len(images):
            raise MetafilmError(f"{len(ids)} ids for {len(images)} images; give the id of each image's task")
        places = self._find(ids)
        widest = max((place.ways for place in places), default=0)
        result = learner.mean.new_full((len(images), widest), -torch.inf)
        with torch.no_grad():
            for start in range(0, len(images), self.batch_size):
                part = places[start : start + self.batch_size]
                found = self._features(images[start : start + self.batch_size], part)
                for ways in {place.ways for place in part}:
                    members = [i for i, place in enumerate(part) if place.ways == ways]
                    kept = torch.tensor([part[i].head_row for i in members], device=device)
                    state = {name: value[kept] for name, value in self._heads[ways].tensors.items()}
                    index = torch.tensor(members, device=device)
                    # each row is a task of one query
                    scores = [self._head.predict(state, look[index].unsqueeze(1)) for look in found]
                    result[start + index, :ways] = torch.stack(scores).mean(0).squeeze(1)
        return result, places

    def _features(self, images: Tensor, places: Sequence[_Place]) -> list[Tensor]:
        """``[B, D]`` as the head takes them, of the images and of each of their copies."""
        like = self.learner.mean
        images = as_pictures(images, self.learner.image_shape).to(like.device, like.dtype)
        rows = torch.tensor([place.row for place in places], device=like.device)
        found = []
        for look in looks(images, looks_at_queries(self.learner), self.learner.copy_augment):
            x = self.learner.prepare(look.unsqueeze(0))
            with torch.autocast(like.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                features = film.call(self._network, self._film.tensors, x, rows, self._norm.tensors)
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
            contents = self._contents()
        learner = self.learner
        head = type(self._head).__name__
        bankfile.write(path, contents, head, learner.fingerprint(), learner.predicts_by())

    def _contents(self) -> bankfile.Contents:
        places = list(self._places.values())
        rows = [place.row for place in places]
        tensors = {f"film/{name}": value[rows] for name, value in self._film.tensors.items()}
        tensors |= {f"norm/{name}": value[rows] for name, value in self._norm.tensors.items()}
        for ways, table in self._heads.items():
            if rows := [place.head_row for place in places if place.ways == ways]:
                tensors |= {f"head/{ways}/{name}": value[rows] for name, value in table.tensors.items()}
        return bankfile.Contents(
            self.ids,
            [place.ways for place in places],
            [place.classes for place in places],
            self._next,
            tensors,
            [place.shots for place in places],
            [place.report and place.report.to_dict() for place in places],
        )

    @classmethod
    def load(
        cls, path: str | Path, learner: SharedNetwork, *, batch_size: int = 256, precision: str = "float32"
    ) -> TaskBank:
        """Read a saved bank for the learner it was made with; ids are kept.

        Raises:
            CheckpointError: missing or damaged file, or tasks that don't fit the learner.
        """
        bank = cls(learner, batch_size=batch_size, precision=precision)
        own = {
            f"{kind}/{name}": value
            for kind, table in (("film", bank._film), ("norm", bank._norm))
            for name, value in table.tensors.items()
        }
        shapes = {name: tuple(value.shape[1:]) for name, value in own.items()}
        contents = bankfile.read(
            path,
            shapes,
            type(bank._head).__name__,
            lambda ways: learner.head.state_shapes(ways, learner.feature_size),
            learner.fingerprint(),
            learner.predicts_by(),
        )
        tensors = {name: value.to(learner.mean.device) for name, value in contents.tensors.items()}
        count = len(contents.ids)
        bank._film = Table({name: tensors[f"film/{name}"] for name in bank._film.tensors}, count)
        bank._norm = Table({name: tensors[f"norm/{name}"] for name in bank._norm.tensors}, count)
        head_rows = dict.fromkeys(contents.ways, 0)
        of_tasks = (contents.ids, contents.ways, contents.classes, contents.shots, contents.reports)
        for row, (identity, ways, classes, shots, gate) in enumerate(zip(*of_tasks, strict=True)):
            try:
                report = None if gate is None else Report.from_dict(gate)
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{path} has a damaged report of the gate ({error}); save the bank again"
                ) from error
            bank._places[identity] = _Place(row, ways, head_rows[ways], classes, shots, report)
            head_rows[ways] += 1
        for ways, rows in head_rows.items():
            prefix = f"head/{ways}/"
            state = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
            bank._heads[ways] = Table(state, rows)
        bank._next = contents.following
        return bank


def _versions(learner: SharedNetwork) -> list[int]:
    """Counts of the changes made in place to each of the learner's tensors."""
    return [
        0 if value.is_inference() else value._version
        for value in (*learner.backbone.state_dict().values(), *learner.head.state_dict().values())
    ]
