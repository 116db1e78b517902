"""The best that can be done with five noisy points: against integrals over a grid, and the rows."""

import json
import math

import numpy as np
import pytest

from episodes.datasets.functions import NOISE, FunctionsSampler
from scripts import functions_floor
from scripts.functions_floor import Posterior

SIDE = 1200


def on_a_grid(kinds: int, x, y, queries) -> np.ndarray:
    """The posterior mean of sine curves, and of lines beside them, by the midpoints of a fine grid."""
    middles = (np.arange(SIDE) + 0.5) / SIDE
    first, second = np.meshgrid(middles, middles)

    def sine(at: float) -> np.ndarray:
        return (0.1 + 4.9 * first) * np.sin(at - math.pi * second)

    def line(at: float) -> np.ndarray:
        return (6 * first - 3) * at + (6 * second - 3)

    above, below = np.zeros(len(queries)), 0.0
    for function in (sine, line)[:kinds]:
        misses = sum((function(at) - wanted) ** 2 for at, wanted in zip(x, y, strict=True))
        likely = np.exp(-misses / (2 * NOISE**2))
        below += likely.sum()
        above += [(likely * function(at)).sum() for at in queries]
    return above / below


@pytest.mark.parametrize("kinds", [1, 2])
def test_the_posterior_mean(kinds) -> None:
    posterior, sampler = Posterior(kinds), FunctionsSampler(kinds, seed=3)
    for number in range(4):
        task = sampler.batch([number])
        x, y, queries = (
            part[0, :, 0].numpy() for part in (task.support_images, task.support_labels, task.query_images)
        )
        found, effective = posterior.mean(x, y, queries)
        assert effective >= functions_floor.ENOUGH
        np.testing.assert_allclose(found, on_a_grid(kinds, x, y, queries), atol=0.05)


def test_it_draws_again_where_few_draws_count() -> None:
    task = FunctionsSampler(1, seed=3).batch([0])
    x, y, queries = (
        part[0, :, 0].numpy() for part in (task.support_images, task.support_labels, task.query_images)
    )
    few = Posterior(1, draws=2**8, enough=0)
    more = Posterior(1, draws=2**8, enough=40)
    assert few.mean(x, y, queries)[1] < 40 <= more.mean(x, y, queries)[1]
    assert len(few.blocks) == 1 < len(more.blocks)


def test_rows(tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "floor.json"
    common = ["--episodes", "9", "--split", "val", "--out", str(out)]
    assert functions_floor.main([*common, "--kinds", "3", "2"]) == 0
    rows = json.loads(out.read_text())
    assert [row["setting"] for row in rows] == [{"kinds": 2}, {"kinds": 3}]
    assert rows[0]["by_domain"].keys() == {"sine", "line"} and "above" not in rows[0]
    assert 0.02 < rows[0]["mse"] < 5 and rows[0]["least_effective_draws"] >= functions_floor.ENOUGH

    def scored(run: str, *, per_task: list, episodes: int, **_) -> None:
        per_task.append([1.0 + rows[1]["mse"]] * episodes)

    monkeypatch.setattr(functions_floor, "record", scored)
    assert functions_floor.main([*common, "--kinds", "3", "--runs", "runs/x"]) == 0
    assert "3 kinds:" in capsys.readouterr().out
    again = json.loads(out.read_text())
    assert again[0] == rows[0] and again[1]["above"] == pytest.approx(1.0)
    assert again[1]["command"].endswith("--kinds 3 --runs runs/x --episodes 9 --split val")
