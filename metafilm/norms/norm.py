"""The normalisation layer whose statistics are chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm.engine import kernels
from metafilm.engine.plain import transformed
from metafilm.errors import MetafilmError
from metafilm.film import FiLM, modulate, refuse_recomputation, undisturbed
from metafilm.norms.rows import Layout
from metafilm.norms.rows import now as present_layout

MODES = ("running", "support", "group", "transductive")


class Measured(NamedTuple):
    """Maps before a norm: how to get them ``[T·n, C, H, W]``, the same max-pooled, and the mean and variance
    that the norm will use, ``[T, C]``, or ``[C]`` for running averages. In mode ``group`` there are only the
    maps themselves. ``window``: of the max-pooling; 1: none."""

    maps: Callable[[], Tensor]
    pooled: Tensor | None
    mean: Tensor
    var: Tensor
    window: int = 2


class Norm(nn.Module):
    """A 2-D normalisation layer with the parameters and buffers of ``nn.BatchNorm2d`` and one of four modes.

    Args:
        num_features: C.
        mode: ``running``, ``support``, ``group`` or ``transductive``.
        groups: groups of channels in mode ``group`` (the greatest divisor of C not above it is used).
        momentum: weight of the newest statistics in the running averages.

    Raises:
        MetafilmError: unknown mode.
    """

    applies_film = True  # a FiLM child is taken into the affine, at no cost

    def __init__(
        self,
        num_features: int,
        mode: str = "running",
        *,
        groups: int = 8,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise MetafilmError(f"unknown norm mode {mode!r}; expected one of {', '.join(MODES)}")
        self.num_features, self.mode, self.eps, self.momentum = num_features, mode, eps, momentum
        self.groups = next(g for g in range(min(groups, num_features), 0, -1) if num_features % g == 0)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        # sums over the tasks since the last commit: they belong to a step under way, never to a checkpoint
        self.register_buffer("recorded", torch.zeros(2, num_features), persistent=False)
        self.register_buffer("recorded_tasks", torch.zeros(()), persistent=False)

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    recorded: Tensor
    recorded_tasks: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``x``: ``[T·n, C, H, W]``, tasks contiguous; the shape is kept."""
        now = present_layout()
        film = self._apart(now)
        if film is not None:
            return film(self._normalised(x, self.weight, self.bias, now))
        return self._normalised(x, *self._affine(), now)

    def _normalised(self, x: Tensor, weight: Tensor, bias: Tensor, now: Layout) -> Tensor:
        if self.mode == "group":
            return self._group(x, weight, bias)
        if self._is_given():
            return self._running(x, weight, bias)
        if self.mode == "support":
            return self._support(x, weight, bias, now)
        return self._batch(x, weight, bias, now)

    def measure(self, x: Tensor, convolution: nn.Module, window: int = 2) -> Measured:
        """The half of ``relu(max_pool2d(norm(convolution(x)), window))`` that no deviation changes;
        :meth:`finish` is the rest.

        A gain above zero commutes with max-pooling, so the affine is left for the pooled maps: a quarter of
        the work, and none of it at full size.

        Args:
            window: 2, or 1 for no pooling.
        """
        now = present_layout()
        # groups of channels in single images have no mean and variance per channel to hand on
        whole = self.mode != "group"
        given = self._is_given()
        if whole and not given:
            _check_rows(x, now.tasks, self.weight)
        tasks, rows = (1, None) if given else (now.tasks, now.support if self.mode == "support" else None)
        # the kernel takes the bare weight: a FiLM layer of the convolution's own, or any hook, would not run
        if whole and window > 1 and kernels.stem_fits(convolution, x) and undisturbed(convolution):
            weight = cast(nn.Conv2d, convolution).weight
            pooled, mean, var = kernels.stem_pool_and_moments(x, weight, tasks, rows)
            found = Measured(lambda: convolution(x), pooled, mean, var)
        else:
            maps = convolution(x)
            found = Measured(lambda: maps, None, self.running_mean, self.running_var, window)
            if not whole:
                return found
            if given:
                found = found._replace(pooled=kernels.max_pool(maps) if window > 1 else maps)
            elif window > 1:
                found = Measured(lambda: maps, *kernels.pool_and_moments(maps, tasks, rows))
            else:
                found = Measured(lambda: maps, maps, *kernels.moments(maps, tasks, rows), window)
        if given:
            return found._replace(mean=self.running_mean, var=self.running_var)
        count = (x.shape[0] // tasks if rows is None else rows) * x.shape[2] * x.shape[3]
        self._note(count, found.mean.detach(), found.var.detach(), now)
        return found

    def finish(self, measured: Measured, relu: bool = True) -> Tensor:
        """Normalised, modulated and pooled maps, after a ReLU or before it, ``[T·n, C, H // 2, W // 2]``
        (unpooled ``[T·n, C, H, W]``)."""
        maps, pooled, mean, var, window = measured
        film = self._apart(present_layout())
        if film is not None:
            # a gain that varies over the map, or from row to row, finds another greatest value
            if pooled is None:
                y = self._group(maps(), self.weight, self.bias)
            else:
                gain = self.weight * torch.rsqrt(var + self.eps)
                y = modulate(maps(), gain, self.bias - mean * gain)
            y = film(y)
            y = F.max_pool2d(y, window) if window > 1 else y
            return y.relu() if relu else y
        weight, bias = self._affine()
        if pooled is None:
            whole = self._group(maps(), weight, bias)
            whole = F.max_pool2d(whole, window) if window > 1 else whole
            return whole.relu() if relu else whole
        if weight.dim() == 2:
            _check_rows(pooled, weight.shape[0], weight)
        elif mean.dim() == 2 and len(mean) == 1:
            mean, var = mean[0], var[0]
        negative = weight.detach() < 0
        # under vmap tasks can't take different branches: both are computed, and each feature takes its own
        if window > 1 and (transformed() or negative.any()):
            # there the least value becomes the greatest
            least = -F.max_pool2d(-maps(), window)
            spread = negative.expand(max(len(negative), 1) if negative.dim() == 2 else 1, -1)
            chosen = spread.repeat_interleave(len(pooled) // len(spread), 0)[:, :, None, None]
            pooled = torch.where(chosen, least, pooled)
        gain = weight * torch.rsqrt(var + self.eps)
        shift = bias - mean * gain
        if gain.dim() == 1:
            gain, shift = gain.unsqueeze(0), shift.unsqueeze(0)
        if relu:
            return kernels.affine_relu(pooled, gain, shift)
        # in the precision of the affine, as the kernel does it, and rounded once
        return modulate(pooled.to(gain.dtype), gain, shift).to(pooled.dtype)

    def _affine(self) -> tuple[Tensor, Tensor]:
        """This layer's own affine followed by its FiLM, if it has one: ``[C]`` or ``[T, C]`` each."""
        film = getattr(self, "film", None)
        if film is not None:
            return cast(FiLM, film).affine(self.weight, self.bias)
        refuse_recomputation(self)  # statistics that are given would be gone, and so would the layout
        return self.weight, self.bias

    def _apart(self, now: Layout) -> FiLM | None:
        """The FiLM layer where it can't be taken into the affine: its deviations vary over the map, or belong
        to rows whose statistics are shared."""
        film = cast("FiLM | None", getattr(self, "film", None))
        if film is None or not (film.varies_over_the_map or now.shared):
            return None
        return film

    def _is_given(self) -> bool:
        """Whether the statistics are there before the images: running averages, or (``[T, C]``) those that
        the tasks were adapted with."""
        return (self.mode == "running" and not self.training) or self.running_mean.dim() == 2

    def _keeps(self, now: Layout) -> bool:
        """Whether this pass leaves its statistics in a buffer.

        Raises:
            MetafilmError: it should, under a transform of ``torch.func`` that forbids it.
        """
        kept = now.capture or (now.record and self.training and self.mode == "running")
        if kept and transformed():
            # a transform's tensors end with it: a buffer that took one would be broken afterwards
            asked = "capture" if now.capture else "record"
            raise MetafilmError(
                f"a pass under a torch.func transform or forward-mode differentiation can't keep statistics, "
                f"and metafilm.norms.layout asks it to ({asked}=True); run it within layout({asked}=False)"
            )
        return kept

    def _note(self, count: int, mean: Tensor, var: Tensor, now: Layout) -> None:
        """Keep statistics ``[T, C]`` of ``count`` pixels each for the running averages, where the layout asks
        for it."""
        if not self._keeps(now):
            return
        if now.capture:
            self._capture(mean[0], var[0])
        else:
            # unbiased, as BatchNorm keeps it, though it normalises by the biased one
            self.recorded += torch.stack((mean, var * (count / (count - 1)))).sum(1)
            self.recorded_tasks += len(mean)

    def _running(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if weight.dim() == 1 and self.running_mean.dim() == 1:
            # tasks with their own affine or averages are beyond this kernel: for them it is written out
            return F.batch_norm(x, self.running_mean, self.running_var, weight, bias, False, 0.0, self.eps)
        gain = weight * torch.rsqrt(self.running_var + self.eps)
        return modulate(x, gain, bias - self.running_mean * gain)

    def _group(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if weight.dim() == 1:
            return F.group_norm(x, self.groups, weight, bias, self.eps)
        return modulate(F.group_norm(x, self.groups, None, None, self.eps), weight, bias)

    def _batch(self, x: Tensor, weight: Tensor, bias: Tensor, now: Layout) -> Tensor:
        """Task by task, each with the statistics of its own images in this pass."""
        _check_rows(x, now.tasks, weight)
        kept = self._keeps(now)
        outputs = []
        # the kernel normalises by all rows that it is given, so each task has a call of its own
        for task, images in enumerate(x.chunk(now.tasks) if now.tasks > 1 else (x,)):
            w, b = (weight, bias) if weight.dim() == 1 else (weight[task], bias[task])
            # with momentum 1 the native kernel leaves this very batch's mean and variance in the buffers
            mean, var = (
                (torch.zeros_like(self.running_mean), torch.ones_like(self.running_var))
                if kept
                else (None, None)
            )
            outputs.append(F.batch_norm(images, mean, var, w, b, True, 1.0, self.eps))
            if mean is not None and var is not None:
                if now.capture:
                    count = images.numel() // images.shape[1]
                    self._capture(mean, var * ((count - 1) / count))
                else:
                    self.recorded += torch.stack((mean, var))
                    self.recorded_tasks += 1
        return torch.cat(outputs) if now.tasks > 1 else outputs[0]

    def _support(self, x: Tensor, weight: Tensor, bias: Tensor, now: Layout) -> Tensor:
        _check_rows(x, now.tasks, weight)
        mean, var = kernels.moments(x, now.tasks, now.support)  # [T, C]
        count = (x.shape[0] // now.tasks if now.support is None else now.support) * x[0, 0].numel()
        self._note(count, mean.detach(), var.detach(), now)
        gain = weight * torch.rsqrt(var + self.eps)
        return modulate(x, gain, bias - mean * gain)

    def _capture(self, mean: Tensor, var: Tensor) -> None:
        with torch.no_grad():
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)

    def extra_repr(self) -> str:
        return f"{self.num_features}, mode={self.mode!r}"


def _check_rows(x: Tensor, tasks: int, weight: Tensor) -> None:
    if weight.dim() == 2 and weight.shape[0] != tasks:
        raise MetafilmError(
            f"deviations of {weight.shape[0]} tasks in a pass laid out for {tasks}; "
            f"run it within metafilm.norms.layout(tasks={weight.shape[0]}), or layout(shared=True) where "
            "each row has its own deviations and all share their statistics, or give film.call the tasks' "
            "statistics"
        )
    if x.shape[0] % tasks:
        raise MetafilmError(
            f"{x.shape[0]} rows can't be shared evenly by {tasks} tasks; give every task the same "
            "number of rows"
        )
