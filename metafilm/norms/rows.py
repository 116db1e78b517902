"""How the rows of a forward pass divide into tasks, and each task's into support and query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layout:
    """How the rows ``[T·n, ...]`` of a forward pass divide: T tasks, each with its first ``support`` rows
    support images (None: all of them). ``record``: note the statistics for the running averages. ``capture``:
    leave in each layer's running averages what this pass normalised with (one task; for export). ``shared``:
    the rows of a task share their statistics, but deviations are not the tasks': each row, or block of rows,
    has its own (a question per picture)."""

    tasks: int = 1
    support: int | None = None
    record: bool = False
    capture: bool = False
    shared: bool = False


WHOLE = Layout()
_layout: ContextVar[Layout] = ContextVar("metafilm_layout", default=WHOLE)


class _Traced:
    """The layout while the compiler traces, which knows no context variables."""

    layout = WHOLE


_traced = _Traced()


def now() -> Layout:
    return _traced.layout if torch.compiler.is_compiling() else _layout.get()


@contextmanager
def layout(
    tasks: int = 1,
    support: int | None = None,
    record: bool = False,
    capture: bool = False,
    shared: bool = False,
) -> Iterator[None]:
    """Within this context, forward passes are laid out so (see :class:`Layout`)."""
    if torch.compiler.is_compiling():
        before, _traced.layout = _traced.layout, Layout(tasks, support, record, capture, shared)
        yield
        _traced.layout = before
        return
    token = _layout.set(Layout(tasks, support, record, capture, shared))
    try:
        yield
    finally:
        _layout.reset(token)
