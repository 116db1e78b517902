"""A run's state, as small as it can be."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def state() -> Callable[..., dict[str, Any]]:
    """`state(iteration, **changes)`."""

    def make(iteration: int = 7, **changes: Any) -> dict[str, Any]:
        return {
            "learner": {"a": torch.arange(3.0)},
            "optimiser": {"state": {}, "param_groups": []},
            "average": None,
            "iteration": iteration,
            "best": None,
            "best_iteration": 0,
            "seconds": 1.5,
            "chunks": [2, 1],
        } | changes

    return make
