"""Running a network with given deviations in place of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metafilm.engine.device import readable
from metafilm.errors import MetafilmError
from metafilm.film.insertion import sites
from metafilm.film.layer import BIAS, GAIN, FiLM, FilmDict
from metafilm.film.recomputing import call_of

DEVIATIONS = (f"film.{GAIN}", f"film.{BIAS}")  # how the name of every deviation ends


def call(
    network: nn.Module,
    film: Mapping[str, Tensor],
    x: Tensor,
    rows: Tensor | None = None,
    statistics: Mapping[str, Tensor] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Run the network with these deviations in place of its own.

    Args:
        film: deviations ``[C]``, or ``[T, C]`` for T tasks, or ``[T, C, H, W]`` or ``[T, C, L]`` where they
            vary over the map (a size of 1 is repeated); with a condition per example T is B. Names that are
            left out keep the network's own.
        x: ``[B, ...]``. Networks with :class:`metafilm.norms.Norm` layers that normalise by the images of
            this pass also need to be told T, by :func:`metafilm.norms.layout`, or that all its rows share
            their statistics though each has deviations of its own (``layout(shared=True)``).
        rows: ``[B]`` int64, which of the T tasks each row of ``x`` belongs to, in any order; None: tasks
            contiguous, ``B / T`` rows each.
        statistics: norm name -> ``[T, 2, C]`` mean and variance (or ``[2, C]`` for all tasks) by which the
            :class:`metafilm.norms.Norm` of that name normalises, instead of by the images of this pass; as
            :attr:`metafilm.Task.statistics`.
        weights: parameter name -> values in the place of the network's own, for all rows alike.

    Raises:
        MetafilmError: a name is not one of the network's deviations, norms or parameters; shapes that don't
            fit; a part of the network lies in a checkpoint, which would run it once more without what is
            given here.
    """
    counts: dict[int, str] = {}
    for name, value in film.items():
        _check(network, name, value)
        if value.dim() > 1 and len(value) != 1:
            counts.setdefault(len(value), name)
    statistics = statistics or {}
    for name, value in statistics.items():
        if value.dim() == 3 and len(value) != 1:
            counts.setdefault(len(value), f"the statistics of {name}")
    if len(counts) > 1:
        said = ", ".join(f"{count} of {name!r}" for count, name in counts.items())
        raise MetafilmError(
            f"deviations of different numbers of tasks: {said}; give all of them as many, or 1"
        )
    if rows is not None:
        # from here on each row is a task of its own
        tables = {name: value for name, value in statistics.items() if value.dim() == 3}
        check_index(rows, len(x), {**film, **tables})
        rows = rows if len(rows) else rows.new_zeros(1)  # of no rows anybody's deviations make nothing
        film = {name: value[rows] for name, value in film.items()}
        statistics = {**statistics, **{name: value[rows] for name, value in tables.items()}}
    given, others = _given(network, statistics), dict(weights or {})
    for name, value in others.items():
        _check_weight(network, name, value)
    # a single task needs no task axis: the plain kernels run, and norms take δ into their own affine
    single = {
        name: value.squeeze(0) if value.dim() == 2 and value.shape[0] == 1 else value
        for name, value in film.items()
    }
    # no two names mean one deviation, and looking for that takes longer than a small network
    if torch.compiler.is_compiling():  # it knows no locks, and traces in one thread
        return functional_call(network, {**single, **given, **others}, (x,), tie_weights=False)
    with exclusive(network), call_of(call.__code__):
        return functional_call(network, {**single, **given, **others}, (x,), tie_weights=False)


def _check(network: nn.Module, name: str, value: Tensor) -> None:
    """Raise MetafilmError where this is no deviation of the network, or has another width."""
    layer = _layer(network, name)
    if layer is None:
        known = ", ".join(sites(network)) or "none"
        raise MetafilmError(f"this network has no deviations {name!r}; its FiLM sites: {known}")
    width = value.shape[:2][-1:]
    if width != (layer.features,) and (value.dim() < 3 or width != (1,)):
        raise MetafilmError(
            f"deviation {name!r} has shape {tuple(value.shape)}, expected ({layer.features},), or (tasks, "
            f"{layer.features}) and the sizes of a map behind that"
        )


def _check_weight(network: nn.Module, name: str, value: Tensor) -> None:
    """Raise MetafilmError where the network has no parameter of this name and shape."""
    try:
        own = network.get_parameter(name)
    except AttributeError:
        raise MetafilmError(
            f"this network has no parameter {name!r}; named_parameters() lists those it has"
        ) from None
    if own.shape != value.shape:
        raise MetafilmError(
            f"weight {name!r} has shape {tuple(value.shape)}, the network's own has {tuple(own.shape)}"
        )


def _layer(network: nn.Module, name: str) -> FiLM | None:
    """The layer that has a deviation of this name; :func:`parameters` lists them all, more slowly."""
    if not name.endswith(DEVIATIONS):
        return None
    found: nn.Module | None = network
    for part in name.split(".")[:-1]:  # by far quicker than get_submodule
        found = found._modules.get(part) if found is not None else None
    if found is None:  # a module that passes names on, as a compiled one does
        try:
            found = network.get_submodule(name.rpartition(".")[0])
        except AttributeError:
            return None
    return found if isinstance(found, FiLM) else None


def only(values: Mapping[str, Tensor]) -> FilmDict:
    """The deviations among values by name, without those of whole weights."""
    return {name: value for name, value in values.items() if name.endswith(DEVIATIONS)}


_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_making = threading.Lock()


def exclusive(network: nn.Module) -> threading.RLock:
    """The network's lock, to be held wherever its tensors are read as its own.

    While :func:`call` runs, the network's deviations are those of that call: another thread that ran it, or
    copied it, in the meantime would do so with somebody else's.
    """
    with _making:
        return _locks.setdefault(network, threading.RLock())


def _given(network: nn.Module, statistics: Mapping[str, Tensor]) -> FilmDict:
    """Statistics as the norms' running averages, ``[T, C]`` each."""
    if not statistics:
        return {}
    norms = {
        name: module for name, module in network.named_modules() if getattr(module, "applies_film", False)
    }
    if unknown := statistics.keys() - norms.keys():
        raise MetafilmError(
            f"statistics of {min(unknown)!r}, which is no metafilm norm of this network; its norms: "
            f"{', '.join(norms) or 'none'}"
        )
    averages = {}
    for name, value in statistics.items():
        features = norms[name].num_features
        if value.dim() not in (2, 3) or value.shape[-2:] != (2, features):
            raise MetafilmError(
                f"statistics of {name!r} have shape {tuple(value.shape)}, expected (tasks, 2, {features}) or "
                f"(2, {features}): mean and variance"
            )
        mean, var = (value if value.dim() == 3 else value.unsqueeze(0)).unbind(1)
        averages |= {f"{name}.running_mean": mean, f"{name}.running_var": var}
    return averages


def check_index(rows: Tensor, batch: int, tables: Mapping[str, Tensor]) -> None:
    """Raise MetafilmError where ``rows`` does not name a task of each table for every row of a batch."""
    if rows.dtype != torch.int64 or rows.dim() != 1 or len(rows) != batch:
        raise MetafilmError(
            f"rows have shape {tuple(rows.shape)} and type {rows.dtype}, expected ({batch},) torch.int64; "
            "give every row of the input the number of its task"
        )
    low, high = (int(rows.min()), int(rows.max())) if batch and readable(rows) else (0, 0)
    for name, value in tables.items():
        if value.dim() < 2 or low < 0 or high >= len(value):
            raise MetafilmError(
                f"rows name tasks {low} to {high}, but {name!r} has shape {tuple(value.shape)}, expected "
                f"(tasks, C) or (tasks, C, H, W); give indices from 0 below the number of tasks"
            )
