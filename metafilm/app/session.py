"""One open page's examples, and what the learner made of them."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from metafilm.app.limits import MOST_CLASSES, MOST_EXAMPLES, MOST_SESSIONS, Refused
from metafilm.learner.task import Task


@dataclass(frozen=True)
class Adapted:
    """The learner before and after adaptation to the examples: ``keys`` are the classes' in the order of the
    outputs."""

    before: Task
    after: Task
    keys: list[int]
    seconds: float


@dataclass
class Session:
    """Examples by their number: (class key, picture). ``adapted`` is of just these, or None."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    lock: threading.Lock = field(default_factory=threading.Lock)
    examples: dict[int, tuple[int, Tensor]] = field(default_factory=dict)
    adapted: Adapted | None = None
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def add(self, key: int, picture: Tensor) -> int:
        """One example more; its number. Raises Refused: as many as there may be."""
        with self.lock:
            keys = [other for other, _ in self.examples.values()]
            if keys.count(key) >= MOST_EXAMPLES:
                raise Refused(f"a class takes {MOST_EXAMPLES} examples at most: take one away first", 409)
            if key not in keys and len(set(keys)) >= MOST_CLASSES:
                raise Refused(f"{MOST_CLASSES} classes at most: take one away first", 409)
            number = next(self._numbers)
            self.examples[number] = (key, picture)
            self.adapted = None
            return number

    def forget(self, numbers: list[int]) -> None:
        """Take examples away; those that are not there are none."""
        with self.lock:
            for number in numbers:
                if self.examples.pop(number, None) is not None:
                    self.adapted = None

    def support(self) -> tuple[list[int], list[Tensor], list[int]]:
        """Numbers, pictures and class keys. Raises Refused: fewer than two classes."""
        with self.lock:
            numbers, pairs = list(self.examples), list(self.examples.values())
        keys = [key for key, _ in pairs]
        if len(set(keys)) < 2:
            raise Refused("give examples of at least two classes first", 409)
        return numbers, [picture for _, picture in pairs], keys


class Sessions:
    """The open pages, so many at most: the one that was longest idle is forgotten for a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def new(self) -> Session:
        session = Session()
        with self._lock:
            while len(self._known) >= MOST_SESSIONS:
                self._known.popitem(last=False)
            self._known[session.token] = session
        return session

    def get(self, token: str) -> Session:
        """Raises Refused: unknown, or forgotten."""
        with self._lock:
            session = self._known.get(token)
            if session is None:
                raise Refused("this page was idle too long and its examples were forgotten", 410)
            self._known.move_to_end(token)
            return session
