"""What the outer loop's optimiser is told: which parameters decay, how fast each group learns, and the moving
average.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metafilm.config.messages import flag
from metafilm.config.settings import Outer
from metafilm.errors import MetafilmError
from metafilm.learner.learner import MetaFiLM


def build(learner: MetaFiLM, settings: Outer, beside: nn.Module | None = None) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov's momentum, over everything but the deviations, and what learns ``beside``
    the learner.

    Matrices and kernels decay; norms' affines, biases, scales and step sizes don't. The task encoder is a
    group of its own: under the backbone's decay an output that starts at zero can stay there. Parts whose
    ``outer.rates`` differ are groups apart.

    Raises MetafilmError: nothing is left to learn.
    """
    kinds = ("shared", "encoder", "undecayed", "encoder_undecayed")
    groups: dict[str, dict[float, list[nn.Parameter]]] = {kind: {} for kind in kinds}
    learned = learner.outer_parameters()
    if not learned and beside is None:
        frozen = f"{flag('outer', 'freeze')} {' '.join(settings.freeze)}"
        raise MetafilmError(f"{frozen} leaves the outer loop nothing to learn; take a part out of it")
    for name, parameter in learned.items():
        part = name.partition(".")[0]
        decays = parameter.dim() > 1 and part != "inner"
        if part == "encoder":
            kind, rate = "encoder", settings.encoder_learning_rate or settings.learning_rate
        else:
            kind, rate = "shared", settings.learning_rate
        kind = kind if decays else {"encoder": "encoder_undecayed", "shared": "undecayed"}[kind]
        # the classifiers of training classes are no part that anybody keeps
        rate *= getattr(settings.rates, part, 1.0)
        groups[kind].setdefault(rate, []).append(parameter)
    decay = {"shared": settings.weight_decay, "encoder": settings.encoder_weight_decay}
    listed: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay.get(kind, 0.0)}
        for kind, by_rate in groups.items()
        for rate, parameters in by_rate.items()
    ]
    if beside is not None:
        listed += of_classifier(beside, settings.learning_rate, settings.weight_decay)
    if settings.optimiser == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(listed, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.AdamW(listed)


def of_classifier(classifier: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    """Groups of the parameters of a classifier of training classes. With thousands of classes they are most
    of a step's memory: fused, an optimiser goes over it once instead of several times."""
    return by_decay(classifier.parameters(), rate, decay, fused=True)


def by_decay(parameters: Iterable[Tensor], rate: float, decay: float, **more: Any) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels, which decay, and all else; ``more``: what each says besides."""
    known = list(parameters)
    return [
        {"params": [p for p in known if (p.dim() > 1) == decays], "lr": rate, "peak": rate}
        | {"weight_decay": decay if decays else 0.0, **more}
        for decays in (True, False)
    ]


def schedule(iteration: int, settings: Outer) -> float:
    """The outer loop's learning rate of iteration 0, 1 ... as a fraction of its peak."""
    warmup = min(settings.warmup, settings.iterations)
    return warm_cosine(iteration, settings.iterations, warmup, settings.final_learning_rate)


def warm_cosine(iteration: int, iterations: int, warmup: int, low: float = 0.0) -> float:
    """A fraction of a peak at iteration 0, 1 ...: linear warm-up, then a cosine to ``low`` at the end."""
    if iteration < warmup:
        return (iteration + 1) / warmup
    progress = (iteration - warmup) / max(iterations - warmup, 1)
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def set_rate(optimiser: torch.optim.Optimizer, fraction: float) -> None:
    """Set every group's learning rate to this fraction of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * fraction


def load(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from an optimiser's ``state_dict``. Raises ValueError: of another network, or damaged."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for number, of_one in state["state"].items():
        if number not in range(len(parameters)) or not isinstance(of_one, dict):
            raise ValueError(f"the optimiser's state has {number!r}, of {len(parameters)} parameters")
        for name, value in of_one.items():
            shape = tuple(parameters[number].shape)
            if not isinstance(value, Tensor) or (value.dim() and value.shape != shape):
                found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"the optimiser's {name} of parameter {number} is {found}, expected {shape}")
    try:
        optimiser.load_state_dict(state)
        if not all(isinstance(group["peak"], float) for group in optimiser.param_groups):
            raise TypeError("the peak of a learning rate is no number")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the optimiser's groups don't fit: {type(error).__name__} {error}") from error


class MovingAverage:
    """An exponential moving average of a module's floating-point state, buffers too; short at first (as in
    Polyak averaging with a warm-up: the decay of update t is at most (1 + t) / (10 + t))."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the module's present state in."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, weight)
            else:
                self.values[name].copy_(value)

    def saved(self) -> dict[str, Any]:
        """What :meth:`load` takes, for a checkpoint."""
        return {"values": self.values, "updates": self.updates}

    def load(self, saved: dict[str, Any] | None) -> None:
        """Go on from what a checkpoint has, wherever it lies. Raises ValueError: nothing, or of another
        module."""
        if saved is None:
            raise ValueError("the average of the weights is missing")
        values = saved["values"]
        own, other = ({name: tuple(v.shape) for name, v in part.items()} for part in (self.values, values))
        for name in own.keys() | other.keys():
            if own.get(name) != other.get(name):
                found, expected = other.get(name, "missing"), own.get(name, "none")
                raise ValueError(f"the average of {name} is {found}, expected {expected}")
        for name, value in self.values.items():
            value.copy_(values[name])
        self.updates = saved["updates"]

    def state(self) -> dict[str, Tensor]:
        """The averaged state dict."""
        return self.values

    @contextmanager
    def standing_in(self, module: nn.Module) -> Iterator[None]:
        """The module with the averaged weights for the time of the context."""
        own = {name: value.detach().clone() for name, value in module.state_dict().items()}
        module.load_state_dict(self.values)
        try:
            yield
        finally:
            module.load_state_dict(own)
