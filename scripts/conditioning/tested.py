"""What systems have in common whose test examples nobody looks at but `write`."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from episodes.counter import first_of_shuffled, words
from metafilm.conditioning import Conditioned
from metafilm.engine.memory import keep_freed_memory
from scripts import device
from scripts.conditioning import running
from scripts.conditioning.commands import System

Scores = dict[str, dict[str, float]]
"""By metric a `value`, its `ci95`, and what else is to stand beside them."""
Make = Callable[[Any], nn.Module]
"""Settings -> the model as it starts, the same for the same seed."""
Fit = Callable[[Any, Any, Path, str], float]
"""Model, settings, the run's folder, a description -> the seconds its training took."""
Score = Callable[[Any, Any, str, str, Path], Scores]
"""Model, settings, `val` or `test`, a description, the run's folder -> its scores."""


def system(
    name: str,
    usual: running.Plan,
    make: Make,
    fit: Fit,
    score: Score,
    over: str,
    tested_on: str,
    **more: Any,
) -> System:
    """The system of a script: its training scores validation examples alone, its `write` test examples.

    Args:
        name, usual, over, tested_on, more: as :class:`scripts.conditioning.commands.System` takes them.
    """
    train, test = training(make, fit, score), testing(usual, make, score)
    return System(name, usual, train, over, tested_on, test=test, **more)


def training(make: Make, fit: Fit, score: Score) -> Callable[[Any, Path, str], dict[str, Any]]:
    """What :class:`scripts.conditioning.commands.System` takes to train a run: it scores validation examples
    alone."""

    def train(settings: Any, folder: Path, arm: str) -> dict[str, Any]:
        keep_freed_memory()  # what draws the examples takes and frees much of it
        described = f"{arm}, seed {settings.seed}"
        model = device.placed(make(settings))
        seconds = fit(model, settings, folder, described)
        conditions = (p.numel() for n, p in model.named_parameters() if ".condition." in f".{n}")
        conditioned = any(isinstance(module, Conditioned) for module in model.modules())  # MAC's is no part
        return {
            "scores": {"val": score(model, settings, "val", f"{described}, scoring", folder)},
            "parameters": running.count(model),
            "beside": {"condition_parameters": sum(conditions)} if conditioned else {},
            "training_seconds": seconds,
        }

    return train


def testing(usual: running.Plan, make: Make, score: Score) -> Callable[[Path], None]:
    """What :class:`scripts.conditioning.commands.System` takes to score the finished runs of a folder on test
    examples, where that has not been done."""

    def test(runs: Path) -> None:
        for path, found, settings in untested(runs, usual):
            model = device.placed(make(settings))
            running.restore(model, path.parent)
            described = f"{found['arm']}, seed {settings.seed}, test"
            scores = score(model, settings, "test", described, path.parent)
            for metric, val in found["scores"]["val"].items():
                beside = {k: v for k, v in val.items() if k not in ("value", "ci95")}
                scores[metric] = {"validation": val["value"], **beside, **scores[metric]}
            found["scores"]["test"] = scores

    return test


def untested(runs: Path, usual: Any) -> Iterator[tuple[Path, dict[str, Any], Any]]:
    """The finished runs of a folder without scores on test examples: the file of each, what it holds, its
    settings. What is put into the second is kept, with the seconds it took."""
    for path in sorted(runs.glob("*/scores.json")):
        found = json.loads(path.read_text())
        if "test" not in found["scores"]:
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in found["settings"].items()}
            begin = time.monotonic()
            yield path, found, replace(usual, **given)
            found["scored"] = {"seconds": round(time.monotonic() - begin), **running.made_with()}
            running.keep(path, found)


def shuffled(step: int, size: int, data: Tensor, seed: int, stream: int) -> Tensor:
    """Which of the rows of `data` a step takes, int64 [size], where they lie: in each epoch all of them,
    shuffled anew, without what fills no last step. stream: of random numbers, a script's own."""
    size = min(size, len(data))
    epoch, at = divmod(step, len(data) // size)
    return _order(seed, epoch, stream, len(data))[at * size : (at + 1) * size].to(data.device)


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, stream: int, total: int) -> Tensor:
    return torch.from_numpy(first_of_shuffled(words(seed, [epoch], stream, (total,)), total)[0])
