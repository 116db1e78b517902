"""A learner with a gate."""

import pytest

from metafilm import Gate, MetaFiLM

EAGER = Gate(steps=(1, 2), margin=0.0)


@pytest.fixture
def gated(make_learner):
    """`gated(gate, steps=4, step_size=0.1, norm="running", **sections)`: a learner in evaluation mode."""

    def make(
        gate: Gate = EAGER, steps: int = 4, step_size: float = 0.1, norm: str = "running", **sections
    ) -> MetaFiLM:
        inner = {"steps": 1, "evaluation_steps": steps, "step_size": step_size}
        learner = make_learner(inner=inner, backbone={"norm": norm}, **sections).eval()
        learner.gate = gate
        return learner

    return make
