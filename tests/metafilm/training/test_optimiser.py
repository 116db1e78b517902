"""Parameter groups, the schedule, the moving average."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from metafilm import film
from metafilm.config.settings import Outer, Rates
from metafilm.errors import MetafilmError
from metafilm.training import optimiser

SETTINGS = Outer(learning_rate=0.1, encoder_learning_rate=0.02, weight_decay=0.3, encoder_weight_decay=0.05)


def test_groups(make_learner) -> None:
    learner = make_learner(train_classes=7, inner={"steps": 1}, outer={"auxiliary": 1.0})
    made = optimiser.build(learner, SETTINGS)
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    found = {}
    for group in made.param_groups:
        assert group["peak"] == group["lr"]
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert found.keys() == learner.outer_parameters().keys()
    assert not any("delta_" in name for name in found)
    for name, value in found.items():
        matrix = learner.get_parameter(name).dim() > 1 and not name.startswith("inner.")
        if name.startswith("encoder."):
            assert value == (0.02, 0.05 if matrix else 0.0), name
        else:
            assert value == (0.1, 0.3 if matrix else 0.0), name
    assert found["backbone.blocks.0.conv.weight"] == (0.1, 0.3)
    assert found["backbone.blocks.0.norm.weight"] == (0.1, 0.0)
    assert found["inner.step_sizes.0"] == (0.1, 0.0)
    assert found["encoder.multiplier"] == (0.02, 0.0)
    assert found["encoder.decoder.linear.weight"] == (0.02, 0.05)


def test_nothing_left_to_learn_is_named(make_learner) -> None:
    frozen = {"freeze": ["backbone", "encoder", "head"]}
    learner = make_learner(inner={"steps": 1, "learn_step_size": False}, outer=frozen)
    with pytest.raises(MetafilmError, match=r"--outer.freeze backbone encoder head leaves the outer loop"):
        optimiser.build(learner, learner.config.outer)


def test_a_rate_for_each_part(make_learner) -> None:
    learner = make_learner(train_classes=7, inner={"steps": 1}, outer={"auxiliary": 1.0})
    rates = {"backbone": 0.1, "encoder": 2.0, "head": 0.5, "inner": 3.0}
    made = optimiser.build(learner, replace(SETTINGS, rates=Rates(**rates)))
    found = {id(parameter): group for group in made.param_groups for parameter in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in made.param_groups)
    for name, parameter in learner.outer_parameters().items():
        part = name.partition(".")[0]
        expected = (0.02 if part == "encoder" else 0.1) * rates.get(part, 1.0)
        assert found[id(parameter)]["lr"] == found[id(parameter)]["peak"] == pytest.approx(expected), name
    optimiser.set_rate(made, 0.5)
    assert found[id(learner.head.log_scale)]["lr"] == pytest.approx(0.1 * 0.5 * 0.5)
    plain = optimiser.build(learner, SETTINGS)
    assert len(plain.param_groups) == 4, "one group for all that learns and decays alike"


def test_the_encoder_s_rate_is_the_same_unless_given(make_learner) -> None:
    made = optimiser.build(make_learner(), replace(SETTINGS, encoder_learning_rate=None))
    assert {group["lr"] for group in made.param_groups} == {0.1}


def test_schedule() -> None:
    settings = Outer(iterations=110, warmup=10, final_learning_rate=0.1)
    found = [optimiser.schedule(i, settings) for i in range(110)]
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[10] == 1.0
    assert found[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert found[35] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert found[10:] == sorted(found[10:], reverse=True)
    assert optimiser.schedule(110, settings) == pytest.approx(0.1)
    assert optimiser.schedule(0, Outer(iterations=5, warmup=500)) == pytest.approx(0.2)
    assert optimiser.schedule(0, Outer(iterations=5, warmup=0)) == 1.0


def test_set_rate(make_learner) -> None:
    made = optimiser.build(make_learner(), SETTINGS)
    optimiser.set_rate(made, 0.5)
    optimiser.set_rate(made, 0.25)
    assert {group["lr"] for group in made.param_groups} == {0.025, 0.005}


def test_moving_average_against_a_loop(make_learner) -> None:
    learner = make_learner()
    average = optimiser.MovingAverage(learner, 0.6)
    name = "backbone.blocks.0.conv.weight"
    value = learner.state_dict()[name].clone()
    for update in range(1, 20):
        for state in learner.state_dict().values():
            state += 1
        decay = min(0.6, (1 + update) / (10 + update))
        value = decay * value + (1 - decay) * learner.state_dict()[name]
        average.update(learner)
    torch.testing.assert_close(average.state()[name], value)
    assert (average.state()[name] - learner.state_dict()[name]).abs().min() > 0.1
    running = "backbone.blocks.0.norm.running_mean"
    assert (average.state()[running] - learner.state_dict()[running]).abs().min() > 0.1
    tracked = "backbone.blocks.0.norm.num_batches_tracked"
    assert average.state()[tracked] == learner.state_dict()[tracked]
    assert set(film.parameters(learner.backbone)) <= {
        key.removeprefix("backbone.") for key in average.state()
    }


def test_an_average_goes_on_from_a_checkpoint_on_another_device() -> None:
    """Pretended GPU: what a checkpoint gives lies on the CPU, and the average must stay where it is."""
    with FakeTensorMode():
        module = nn.Linear(3, 2, device="cuda")
        average = optimiser.MovingAverage(module, 0.9)
        average.load({"values": {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, "updates": 5})
        assert {value.device.type for value in average.state().values()} == {"cuda"} and average.updates == 5
        average.update(module)


def test_an_average_of_another_module() -> None:
    average = optimiser.MovingAverage(nn.Linear(3, 2), 0.9)
    for values, message in (
        ({"weight": torch.ones(2, 3)}, "the average of bias is missing"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, r"of weight is \(2, 4\), expected \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            average.load({"values": values, "updates": 1})
    with pytest.raises(ValueError, match="the average of the weights is missing"):
        average.load(None)


def test_a_state_that_does_not_fit(make_learner) -> None:
    learner = make_learner()
    adam = optimiser.build(learner, learner.config.outer)
    for parameter in learner.outer_parameters().values():
        parameter.grad = torch.ones_like(parameter)
    adam.step()
    state = copy.deepcopy(adam.state_dict())
    optimiser.load(adam, state)
    bad = copy.deepcopy(state)
    bad["state"][0]["exp_avg"] = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"exp_avg of parameter 0 is \(1, 2\), expected"):
        optimiser.load(adam, bad)
    with pytest.raises(ValueError, match="the optimiser's state has 99"):
        optimiser.load(adam, {**state, "state": {99: {}}})
    for groups in ([], [{}] * 4, "words", [{"params": [0]}]):
        with pytest.raises(ValueError):
            optimiser.load(adam, {**state, "param_groups": groups})
    for group in state["param_groups"]:
        del group["peak"]
    with pytest.raises(ValueError, match="the optimiser's groups don't fit"):
        optimiser.load(adam, state)
