"""What the page can ask for: take an example, adapt, answer, give the task away."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metafilm import film
from metafilm.app.limits import MOST_OPENED, NAME_LENGTH, Refused, public
from metafilm.app.pictures import Look, from_file, from_strokes
from metafilm.app.session import Adapted, Session, Sessions
from metafilm.learner.learner import MetaFiLM
from metafilm.learner.support import as_pictures, support_episode
from metafilm.learner.task import Task, settled
from metafilm.report import data_address

CELLS = 64  # of a site in the picture of δ
FALSE_ALARMS = 0.02  # share of pictures of the classes that may be called none of them


class Desk:
    """A learner at the service of pages. Safe to call from several threads: the learner computes for one at a
    time.

    Args:
        learner: of square pictures.
        name: what it was loaded from.

    Raises:
        Refused: a learner of something else.
    """

    def __init__(self, learner: MetaFiLM, name: str) -> None:
        self.learner, self.name = learner, name
        self.look = Look.of(learner)
        self.sessions = Sessions()
        self._computing = threading.Lock()
        self._opening = threading.BoundedSemaphore(MOST_OPENED)

    def about(self) -> dict[str, Any]:
        """What the page says of the learner."""
        sites = film.sites(self.learner.backbone)
        return {
            "name": self.name,
            "size": self.look.size,
            "channels": self.look.channels,
            "ink": self.look.ink,
            "gate": self.learner.gate is not None,
            "encoder": self.learner.encoder is not None and self.learner.stage != "identity",
            "steps": self.learner.evaluation_steps if self.learner.stage is None else 0,
            "sites": len(sites),
            "deviations": 2 * sum(sites.values()),
            "limits": public(),
        }

    def picture(self, content: Any) -> Tensor:
        """A drawing's strokes, or a file's bytes, as the learner's pictures. Raises Refused."""
        if isinstance(content, bytes):
            with self._opening:
                return from_file(content, self.look)
        return from_strokes(content, self.look)

    def add(self, session: Session, key: int, content: Any) -> dict[str, Any]:
        """Take an example of a class; its number, and how the learner sees it. Raises Refused."""
        picture = self.picture(content)
        return {"example": session.add(key, picture), "picture": data_address(picture)}

    def adapt(self, session: Session) -> Adapted:
        """The learner before and after adaptation to the examples, computed once for them.

        Raises:
            Refused: fewer than two classes have examples.
        """
        with self._computing:
            if session.adapted is not None:
                return session.adapted
            numbers, images, keys = session.support()
            begin = time.perf_counter()
            stacked = torch.stack(images)
            after = self.learner.adapt(stacked, keys, checked=True)
            before = self._unadapted(stacked, keys)
            for task in (before, after):
                task.predict_proba(stacked[:1])  # folds its network once, before anybody waits for it
            adapted = Adapted(before, after, list(after.classes), time.perf_counter() - begin)
            with session.lock:
                if numbers == list(session.examples):  # none came or went meanwhile
                    session.adapted = adapted
            return adapted

    def _unadapted(self, images: Tensor, keys: list[int]) -> Task:
        """The task of δ = 0: the shared network as it is, with the head fitted to the examples."""
        learner = self.learner
        pictures = as_pictures(images, learner.image_shape).to(learner.mean.device, learner.mean.dtype)
        episode, classes = support_episode(pictures, keys, regression=False)
        with learner.evaluating(), torch.no_grad():
            zeros = {name: value[0] for name, value in film.zeros(learner.backbone, 1).items()}
            return settled(learner, zeros, episode, classes)

    def adaptation(self, session: Session) -> dict[str, Any]:
        """What adapting did: the gate's choice, the deviations by site. Raises Refused."""
        adapted = self.adapt(session)
        report = adapted.after.report
        return {
            "classes": adapted.keys,
            "examples": len(session.examples),
            "milliseconds": 1000 * adapted.seconds,
            "gate": None if report is None else {"chosen": report.chosen, "why": report.why},
            "sites": sites_of(adapted.after.film, film.sites(self.learner.backbone)),
        }

    def answer(self, session: Session, content: Any) -> dict[str, Any]:
        """Class probabilities of a picture, before and after adaptation; whether it is of one of the classes
        at all, where the weights were calibrated for that. Raises Refused."""
        begin = time.perf_counter()
        picture = self.picture(content)
        adapted = self.adapt(session)
        with self._computing:
            before = adapted.before.predict_proba(picture.unsqueeze(0))[0].tolist()
            after = adapted.after.predict_proba(picture.unsqueeze(0))[0].tolist()
            known = None
            if self.learner.calibrated() is not None:
                known = bool(adapted.after.known(picture.unsqueeze(0), FALSE_ALARMS)[0])
        return {
            "classes": adapted.keys,
            "before": before,
            "after": after,
            "known": known,
            "picture": data_address(picture),
            "milliseconds": 1000 * (time.perf_counter() - begin),
        }

    def task_file(self, session: Session, names: Any) -> bytes:
        """The task as :meth:`metafilm.Task.save` writes it, its classes by their names.

        Args:
            names: class key (as text) -> name.

        Raises:
            Refused: fewer than two classes, or names that are missing or the same.
        """
        adapted = self.adapt(session)
        called = []
        for key in adapted.keys:
            name = names.get(str(key)) if isinstance(names, dict) else None
            if not isinstance(name, str) or not name.strip() or len(name) > NAME_LENGTH:
                raise Refused(f"give every class a name of 1 to {NAME_LENGTH} characters first")
            called.append(name.strip())
        if twice := [name for name in called if called.count(name) > 1]:
            raise Refused(f"two classes are called {twice[0]!r}: give each a name of its own")
        after = adapted.after
        named = Task(
            self.learner,
            after.film,
            after.state,
            after.statistics,
            called,
            after.fingerprint,
            after.report,
            after.shots,
        )
        with tempfile.TemporaryDirectory(prefix="metafilm-") as folder:
            path = Path(folder) / "task.safetensors"
            named.save(path)
            return path.read_bytes()


def sites_of(deviations: dict[str, Tensor], sites: dict[str, int]) -> list[dict[str, Any]]:
    """By site the root mean square of gain and bias deviation, and their values; of more than 64 feature maps
    each value is the largest of its neighbours."""
    found = []
    for site in sites:
        gain, bias = (deviations[name].detach().float().cpu() for name in film.names(site))
        found.append(
            {
                "name": site,
                "gain": _cells(gain),
                "bias": _cells(bias),
                "gain_size": round(float(gain.square().mean().sqrt()), 5),
                "bias_size": round(float(bias.square().mean().sqrt()), 5),
            }
        )
    return found


def _cells(values: Tensor) -> list[float]:
    parts = values.tensor_split(min(CELLS, len(values)))
    return [round(float(part[part.abs().argmax()]), 4) for part in parts]
