"""What a bank keeps of its tasks: rows of tables, and where each task's are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from metafilm import film, norms
from metafilm.errors import CheckpointError, MetafilmError
from metafilm.learner.gate import Report
from metafilm.learner.network import SharedNetwork
from metafilm.learner.task import Task
from metafilm.serving.table import Table
from metafilm.storage import bankfile


class Place(NamedTuple):
    """Where a task is kept: its row among all tasks, and its row among the heads of that many ways."""

    row: int
    ways: int
    head_row: int
    classes: list[Any]
    shots: list[int] | None
    report: Report | None


class Kept:
    """Tasks of one learner by id. Not for several threads at once: whoever has it holds a lock.

    Args:
        network: of the learner; tells which deviations and statistics a task has, and in which dtype.
    """

    def __init__(self, network: nn.Module) -> None:
        own = film.parameters(network)
        self.film = Table({name: value.new_zeros(0, len(value)) for name, value in own.items()})
        self.norm = Table(
            {
                name: module.weight.new_zeros(0, 2, module.num_features)
                for name, module in network.named_modules()
                if isinstance(module, norms.Norm) and module.mode in ("support", "transductive")
            }
        )
        self.heads: dict[int, Table] = {}
        self.places: dict[int, Place] = {}
        self.following = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, the free rows too."""
        return sum(table.nbytes for table in (self.film, self.norm, *self.heads.values()))

    def put(self, task: Task) -> int:
        """Keep a task that :meth:`require_fitting` has let pass; returns its id."""
        state = {name: value[0] for name, value in task.state.items()}
        ways = len(next(iter(state.values())))
        if ways not in self.heads:
            self.heads[ways] = Table({name: v.new_zeros(0, *v.shape) for name, v in state.items()})
        row = self.film.put(task.film)
        if self.norm.tensors:
            # one row a task in both, given and freed together
            self.norm.put(task.statistics)
        head_row = self.heads[ways].put(state)
        self.places[self.following] = Place(row, ways, head_row, list(task.classes), task.shots, task.report)
        self.following += 1
        return self.following - 1

    def require_fitting(self, tasks: Iterable[Task]) -> None:
        """Raise MetafilmError where what a task keeps has another shape than the tables.

        Tasks of as many ways share a table, so that what the head keeps of them must have one shape.
        """
        known = {ways: _row_shapes(table) for ways, table in self.heads.items()}
        for task in tasks:
            for kind, values, table in (
                ("deviations", task.film, self.film),
                ("statistics", task.statistics, self.norm),
            ):
                found = {name: tuple(value.shape) for name, value in values.items()}
                if found != (expected := _row_shapes(table)):
                    raise MetafilmError(
                        f"the task's {kind} have shapes {found}, this learner's have {expected}; adapt it "
                        "again"
                    )
            found = {name: tuple(value.shape[1:]) for name, value in task.state.items()}
            expected = known.setdefault(next(iter(found.values()))[0], found)
            if found != expected:
                raise MetafilmError(
                    f"the head keeps {found} of {task!r}, and {expected} of others here with as many "
                    "classes: it keeps every support image; give all of a bank's tasks as many, or use head "
                    "reconstruction"
                )

    def remove(self, identity: int) -> None:
        """Forget a task; its rows go to the next one. Raises MetafilmError: unknown id."""
        place = self.find([identity])[0]
        del self.places[int(identity)]
        self.film.free.append(place.row)
        if self.norm.tensors:
            self.norm.free.append(place.row)
        self.heads[place.ways].free.append(place.head_row)

    def task(self, identity: int, learner: SharedNetwork) -> Task:
        """The task as it was put, in tensors of its own. Raises MetafilmError: unknown id."""
        place = self.find([identity])[0]
        return Task(
            learner,
            self.film.get(place.row),
            {name: value.unsqueeze(0) for name, value in self.heads[place.ways].get(place.head_row).items()},
            self.norm.get(place.row),
            list(place.classes),
            report=place.report,
            shots=place.shots,
        )

    def find(self, ids: Iterable[int] | Tensor) -> list[Place]:
        """Where each of these tasks is. Raises MetafilmError: unknown id."""
        # of a tensor or an array plain numbers
        numbers: list[int] = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else list(ids)
        try:
            return [self.places[identity] for identity in numbers]
        except (KeyError, TypeError):
            unknown = next(i for i in numbers if i not in list(self.places))
            raise MetafilmError(
                f"no task with the id {unknown!r} among the {len(self.places)} held; use an id that add "
                "returned and remove has not taken"
            ) from None

    def contents(self) -> bankfile.Contents:
        """All tasks as a file has them."""
        places = list(self.places.values())
        rows = [place.row for place in places]
        tensors = {f"film/{name}": value[rows] for name, value in self.film.tensors.items()}
        tensors |= {f"norm/{name}": value[rows] for name, value in self.norm.tensors.items()}
        for ways, table in self.heads.items():
            if rows := [place.head_row for place in places if place.ways == ways]:
                tensors |= {f"head/{ways}/{name}": value[rows] for name, value in table.tensors.items()}
        return bankfile.Contents(
            list(self.places),
            [place.ways for place in places],
            [place.classes for place in places],
            self.following,
            tensors,
            [place.shots for place in places],
            [place.report and place.report.to_dict() for place in places],
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of ``film/NAME`` and ``norm/NAME`` in a file, without the axis of tasks."""
        parts = (("film", self.film), ("norm", self.norm))
        return {f"{kind}/{name}": shape for kind, t in parts for name, shape in _row_shapes(t).items()}

    def take(self, contents: bankfile.Contents, path: Any, device: torch.device) -> None:
        """The tasks of a file in the place of none. Raises CheckpointError: a damaged report of the gate."""
        tensors = {name: value.to(device) for name, value in contents.tensors.items()}
        count = len(contents.ids)
        self.film = Table({name: tensors[f"film/{name}"] for name in self.film.tensors}, count)
        self.norm = Table({name: tensors[f"norm/{name}"] for name in self.norm.tensors}, count)
        head_rows = dict.fromkeys(contents.ways, 0)
        of_tasks = (contents.ids, contents.ways, contents.classes, contents.shots, contents.reports)
        for row, (identity, ways, classes, shots, gate) in enumerate(zip(*of_tasks, strict=True)):
            try:
                report = None if gate is None else Report.from_dict(gate)
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{path} has a damaged report of the gate ({error}); save the bank again"
                ) from error
            self.places[identity] = Place(row, ways, head_rows[ways], classes, shots, report)
            head_rows[ways] += 1
        for ways, rows in head_rows.items():
            prefix = f"head/{ways}/"
            state = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
            self.heads[ways] = Table(state, rows)
        self.following = contents.following


def _row_shapes(table: Table) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape[1:]) for name, value in table.tensors.items()}
