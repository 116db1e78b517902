"""A step recorded as a CUDA graph does what the same step does by itself; to be run where there is a GPU."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from scripts.conditioning import running
from scripts.conditioning.recorded import Batched


def batched(model: nn.Module) -> Batched:
    device = next(model.parameters()).device

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        made = torch.Generator().manual_seed(step)
        x = torch.randn(8, 6, generator=made) + torch.rand(8, 6)  # of PyTorch's own numbers too
        return x.to(device), torch.randint(3, (8,), generator=made).to(device)

    return Batched(batch, lambda x, y: nn.functional.cross_entropy(model(x), y))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def test_a_step_in_two_parts_is_the_step() -> None:
    model = network()
    one = batched(model)
    torch.manual_seed(1)
    found = one(4)
    torch.manual_seed(1)
    torch.testing.assert_close(found, one.loss(*one.batch(4)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")
def test_recorded_steps_are_steps(tmp_path) -> None:
    plan = replace(running.Plan(), iterations=20, warmup=2, clip=1.0, average=0.9)
    found = []
    for name in ("by themselves", "recorded"):
        model = network().cuda()
        steps = batched(model)
        running.train(model, steps if name == "recorded" else steps.__call__, plan, tmp_path / name)
        found.append(model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6)
