"""Trained weights, pinned: moving code about must not change what a seed trains. In float64 and by PyTorch's
operations, where machines agree to many digits. Renew a number only with the reason in the commit's message.

`python tests/metafilm/invariants/test_pinned_training.py` prints the numbers of the code as it is.
"""

import json
from pathlib import Path

import pytest
import torch

from episodes import ClassPool, EpisodeSampler
from episodes.datasets.sinusoids import SinusoidSampler
from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.learner.build import build_learner
from metafilm.training.outer_loop import OuterLoop

PINNED = Path(__file__).with_suffix(".json")
CASES = {
    "encoder and steps": {"inner": {"steps": 2}, "outer": {"auxiliary": 0.1, "average": 0.9}},
    "support norm": {"backbone": {"norm": "support"}, "head": {"name": "cosine"}, "inner": {"steps": 1}},
    "transductive, gru": {"backbone": {"norm": "transductive"}, "encoder": {"decoder": "gru"}},
    "group, ridge, first order": {
        "backbone": {"name": "resnet12", "width": 2, "norm": "group"},
        "head": {"name": "ridge"},
        "inner": {"steps": 1, "first_order": True},
    },
    "linear, steps alone": {"head": {"name": "linear"}, "encoder": {"enabled": False}, "inner": {"steps": 2}},
    "functions": {
        "data": {"name": "sinusoids", "image_size": None},
        "episodes": {"shots": 5, "queries": 10},
        "backbone": {"name": "mlp", "hidden": [8, 8], "activation": "tanh"},
        "encoder": {"decoder": "mlp", "depth": 2},
        "head": {"name": "regression"},
        "inner": {"steps": 1},
    },
}


def trained(case: str) -> dict[str, float]:
    """A few numbers that tell a small training apart from any other."""
    settings: dict[str, dict] = {
        "data": {"name": "strokes", "image_size": 16},
        "episodes": {"ways": 3, "shots": 2, "queries": 2},
        "backbone": {"width": 4},
        "encoder": {"width": 6},
        "outer": {"iterations": 5, "meta_batch": 2, "task_chunk": 1, "learning_rate": 0.01, "warmup": 2},
    }
    for name, section in CASES[case].items():
        settings[name] = settings.get(name, {}) | section
    config = Config.from_dict(settings)
    if settings["data"]["name"] == "sinusoids":
        source = Source(SinusoidSampler(shots=5, queries=10, seed=0), ())
        learner = build_learner(config, (1,), 0, [0.0], [2.9])
    else:
        generator = torch.Generator().manual_seed(5)
        images = torch.randint(0, 256, (56, 1, 16, 16), generator=generator).to(torch.uint8)
        pool = ClassPool.from_arrays(images, torch.arange(7).repeat_interleave(8))
        source = Source(EpisodeSampler(pool, 3, 2, 2, 0), (pool,))  # the learner makes the views itself
        learner = build_learner(config, (1, 16, 16), 7, [0.5], [0.3])
    loop = OuterLoop(learner.double(), config, source)
    losses = [
        loop.step(list(source.sampler.batches(loop.indices(i), 1)))["loss"]
        for i in range(loop.config.outer.iterations)
    ]
    found = {"first loss": losses[0], "last loss": losses[-1]}
    for name, value in sorted(learner.state_dict().items()):
        if value.is_floating_point():
            weights = torch.cos(torch.arange(value.numel(), dtype=torch.float64))
            part = name.partition(".")[0]
            found[part] = found.get(part, 0.0) + float((value.double().flatten() * weights).sum())
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_trains_the_same_weights_as_ever(case: str) -> None:
    expected = json.loads(PINNED.read_text())[case]
    assert trained(case) == pytest.approx(expected, rel=1e-6, abs=1e-8)


if __name__ == "__main__":
    print(json.dumps({case: trained(case) for case in CASES}, indent=2))
