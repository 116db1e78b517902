"""Dropout in training is a function of the seed, whatever was drawn before and wherever it was stopped."""

import signal

import pytest
import torch
from torch.nn import functional as F

from metafilm.storage.run import RunDirectory
from metafilm.training import run as training
from metafilm.training.outer_loop import OuterLoop
from metafilm.training.plain.pretraining import Pretraining
from metafilm.training.randomness import OUTER, PLAIN, drawn

CPU = torch.device("cpu")


@pytest.fixture
def with_dropout(monkeypatch) -> None:
    """`train` builds networks whose blocks forget some of their maps."""
    plain = training.build_learner

    def build(*args, **kwargs):
        learner = plain(*args, **kwargs)
        for block in learner.backbone.blocks:
            block.register_forward_hook(lambda module, _, maps: F.dropout(maps, 0.3, module.training))
        return learner

    monkeypatch.setattr(training, "build_learner", build)


@pytest.fixture
def config(tiny_config):
    return tiny_config(
        pretrain={"iterations": 6, "batch": 12, "learning_rate": 0.05},
        outer={"iterations": 6, "plain": 12},
        inner={"steps": 1},
        evaluation={"every": 3, "checkpoint_every_seconds": 0.0},
    )


def weights(directory: RunDirectory) -> dict[str, torch.Tensor]:
    state = directory.load_checkpoint()
    assert state is not None
    return state["learner"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(("stage", "at"), [(Pretraining, 2), (Pretraining, 5), (OuterLoop, 2)])
def test_stopped_and_resumed_it_is_the_same_to_the_last_bit(
    with_dropout, run, config, tmp_path, monkeypatch, stage, at
) -> None:
    torch.manual_seed(1)
    whole = weights(run(config, tmp_path / "whole"))
    original = stage.step

    def interrupted(self, batch):
        if self.iteration == at:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    torch.manual_seed(2)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "broken")
    torch.manual_seed(3)
    assert same(whole, weights(run(config, tmp_path / "broken")))


def test_nothing_is_drawn_from_the_callers_numbers(with_dropout, run, tiny_config, tmp_path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(tiny_config(outer={"task_chunk": None}, pretrain={"iterations": 2, "batch": 12}), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_step_or_stage_draws_others() -> None:
    def numbers(seed: int, number: int, stream: int) -> list[float]:
        with drawn(seed, number, stream, CPU):
            return torch.rand(4).tolist()

    found = [numbers(*where) for where in ((0, 0, OUTER), (1, 0, OUTER), (0, 1, OUTER), (0, 0, PLAIN))]
    assert len({tuple(values) for values in found}) == 4
    assert numbers(0, 1, OUTER) == found[2]
