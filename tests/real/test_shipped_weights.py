"""The weights that ship with the package score on real Omniglot what the committed table says."""

import json
from pathlib import Path

import pytest

from metafilm.cli.eval import record

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.real("omniglot")
def test_omniglot_conv4_scores_as_reported():
    rows = json.loads((ROOT / "results" / "omniglot.json").read_text())
    reported = next(
        row for row in rows if (row["ways"], row["shots"], row["encoder_support"]) == (5, 1, "own")
    )
    found = record(
        "omniglot-conv4", ways=5, shots=1, queries=15, episodes=150, seed=reported["seed"], split="test"
    )
    # the first 150 of the reported 1,000 episodes: within three standard errors of their mean
    assert abs(found["accuracy"] - reported["accuracy"]) < 3 * found["ci95"] / 1.96
    assert found["accuracy"] > 97.5
    assert found["protocol"] == reported["protocol"] == "inductive"
