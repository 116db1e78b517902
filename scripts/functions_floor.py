"""How well a mixture of functions can be learned at all: results/functions-floor.json.

    python scripts/functions_floor.py                                   # 2, 3 and 5 kinds, minutes
    python scripts/functions_floor.py --kinds 5 --runs runs/functions   # and what a run has above it

Five noisy points leave many functions possible. Who knew how tasks are drawn could do no better, in the mean
square, than the mean of them all, each weighted by how likely it makes the support (the posterior mean): no
learner's error is lower in expectation. It is found here by drawing functions, as many of each kind as the
mixture has (Sobol points of the very parameters that `episodes.datasets.functions` draws), for the same test
tasks that scripts/mixtures.py scores; so it lies a trifle above the true one. Rows say how many draws count
at least (`least_effective_draws`): a task in which few do is drawn for again, up to 32 times as often.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from episodes.datasets.functions import KINDS, NOISE, value  # noqa: E402
from episodes.progress import track  # noqa: E402
from metafilm.cli.eval import record  # noqa: E402
from metafilm.config import load_config  # noqa: E402
from metafilm.config.sources import evaluation_source  # noqa: E402
from metafilm.evaluation import interval  # noqa: E402
from scripts.mixtures import EPISODES  # noqa: E402
from scripts.mixtures import KINDS as MIXTURES  # noqa: E402
from scripts.records import commit, hardware, options, put  # noqa: E402

OUT = ROOT / "results" / "functions-floor.json"
DRAWS = 2**17  # of each kind
ENOUGH = 100.0  # effective draws
REPEATS = 32
SMALLEST = 30.0  # draws less likely by e to this than the likeliest are left out

Numbers = NDArray[np.float32]


class Posterior:
    """What a support set leaves possible of a mixture of the first ``kinds`` of KINDS."""

    def __init__(self, kinds: int, draws: int = DRAWS, enough: float = ENOUGH) -> None:
        self.kinds, self.enough, self.draws = kinds, enough, draws
        self.blocks: list[Numbers] = []
        self.sobol = qmc.Sobol(4, seed=0)

    def block(self, number: int) -> Numbers:
        """Parameters as `value` takes them, uniform in [0, 1): ``[draws, 4]``."""
        while len(self.blocks) <= number:
            self.blocks.append(self.sobol.random(self.draws).astype(np.float32))
        return self.blocks[number]

    def mean(self, x: Numbers, y: Numbers, queries: Numbers) -> tuple[NDArray[np.float64], float]:
        """The posterior mean at ``queries`` ``[Q]``, given points ``x, y`` ``[S]``; and how many draws it
        rests on, (sum of weights)² / sum of their squares."""
        logs, values = np.zeros(0), np.zeros((0, len(queries)))
        for repeat in range(REPEATS):
            parameters = self.block(repeat)
            # `value` is declared for float64 alone; its operations keep float32 as it is
            for kind in range(self.kinds):
                misses = value(kind, parameters, x[None]) - y  # type: ignore[arg-type]
                log = -np.square(misses).sum(1) / (2 * NOISE**2)
                likely = log > max(log.max(), logs.max(initial=-np.inf)) - SMALLEST
                given = value(kind, parameters[likely], queries[None])  # type: ignore[arg-type]
                logs, values = np.concatenate((logs, log[likely])), np.concatenate((values, given))
            weights = np.exp(logs - logs.max())
            effective = weights.sum() ** 2 / np.square(weights).sum()
            if effective >= self.enough:
                break
        return weights @ values / weights.sum(), effective


def floor(kinds: int, episodes: int, split: str, runs: Path | None) -> dict[str, Any]:
    """A row: the mean squared error of the posterior mean, and of it by kind; with ``runs`` also by how much
    the run there is above it (``above``), paired."""
    begin = time.perf_counter()
    config = load_config("functions")
    config = replace(config, data=replace(config.data, name=f"functions-{kinds}"))
    sampler = evaluation_source(config, split, None, queries=5, seed=0).sampler
    posterior = Posterior(kinds)
    errors, effective = np.zeros(episodes), np.zeros(episodes)
    for number in track(range(episodes), f"{kinds} kinds"):
        task = sampler.batch([number])
        x, y, queries, wanted = (
            part[0, :, 0].numpy()
            for part in (task.support_images, task.support_labels, task.query_images, task.query_labels)
        )
        mean, effective[number] = posterior.mean(x, y, queries)
        errors[number] = np.square(mean - wanted).mean()
    which = np.arange(episodes) % kinds
    row: dict[str, Any] = {
        "setting": {"kinds": kinds},
        "arm": "posterior mean",
        "dataset": f"functions-{kinds}",
        "split": split,
        "shots": 5,
        "queries": 5,
        "seed": 0,
        "episodes": episodes,
        **scores(errors),
        "by_domain": {KINDS[kind]: scores(errors[which == kind]) for kind in range(kinds)},
        "draws": posterior.draws * kinds,
        "least_effective_draws": effective.min(),
        "protocol": "inductive; knows how tasks are drawn",
        "wall_seconds": time.perf_counter() - begin,
    }
    if runs is not None:
        run = runs / f"functions-{kinds}-encoder+steps"
        each: list[list[float]] = []
        record(str(run), per_task=each, episodes=episodes, queries=5, seed=0, split=split)
        above = np.array(each[0]) - errors
        row |= {"run": run.as_posix(), "above": above.mean(), "above_ci95": interval(above.tolist())}
    return row


def scores(errors: NDArray[np.float64]) -> dict[str, float]:
    return {"mse": errors.mean(), "ci95": interval(errors.tolist())}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", type=int, choices=MIXTURES, default=list(MIXTURES))
    parser.add_argument("--runs", type=Path, default=None, help="folder of scripts/mixtures.py's runs")
    parser.add_argument("--episodes", type=int, default=EPISODES["functions"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(words)
    for kinds in arguments.kinds:
        row = floor(kinds, arguments.episodes, arguments.split, arguments.runs)
        asked = {"kinds": kinds} | ({"runs": arguments.runs.as_posix()} if arguments.runs else {})
        asked |= {"episodes": arguments.episodes, "split": arguments.split}
        row |= {"command": f"python scripts/functions_floor.py {options(asked)}"}
        row |= {"hardware": hardware(), "commit": commit()}
        put(arguments.out, [row], lambda one: one["setting"]["kinds"])
        above = f", the run {row['above']:+.3f} ± {row['above_ci95']:.3f}" if "above" in row else ""
        print(f"{kinds} kinds: {row['mse']:.3f} ± {row['ci95']:.3f}{above}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
