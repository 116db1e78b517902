"""Class-conditional generation: the smallest setting learns, resumes exactly, and its records are whole."""

from dataclasses import replace

import pytest
import torch
import yaml

from metafilm.errors import MetafilmError
from scripts.conditioning import generation, running
from scripts.conditioning.generation import SYSTEM, Drawings, Generator, Settings, judge
from scripts.conditioning.unet import TimeAndClass, UNet

ARMS = yaml.safe_load(SYSTEM.config.read_text())["arms"]
SMALL = Settings(data="digits", width=8, vector=16, pictures=16, iterations=30, warmup=5, judging=3, heun=2)


def small(arm) -> Settings:
    """The arm, small, on digits."""
    settings = running.settings_of(SYSTEM.config, SMALL, arm)
    return replace(settings, data="digits", width=8, pictures=16, iterations=30, learning_rate=5e-3)


@pytest.mark.parametrize("arm", ["linear", "mlp"])
def test_its_loss_falls(arm, losses, tmp_path) -> None:
    found = losses(generation, small(arm), tmp_path)
    assert sum(found[-5:]) < 0.9 * sum(found[:5])


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_draws_by_class_and_time(arm) -> None:
    torch.manual_seed(0)
    model = Generator(small(arm), 10, 16).eval()
    torch.nn.init.normal_(model.speed.condition.multiplier)
    torch.nn.init.normal_(model.speed.network.exit.weight)
    x, time = torch.randn(1, 1, 16, 16).expand(3, -1, -1, -1), torch.tensor([0.2, 0.2, 0.9])
    with torch.no_grad():
        first, second, third = model.speed(x, time, torch.tensor([1, 2, 1]))
    assert (first - second).abs().max() > 1e-3 and (first - third).abs().max() > 1e-3
    starts = Generator(small(arm), 10, 16).speed(x, time, torch.tensor([1, 2, 10]))
    assert torch.equal(starts, torch.zeros(3, 1, 16, 16))  # the identity, and a last layer of zeros


def test_the_linear_arm_is_linear_in_the_class() -> None:
    torch.manual_seed(0)
    encoder = TimeAndClass(3, {"a": 4, "b": 2}, width=8).double()
    torch.nn.init.normal_(encoder.multiplier)
    with torch.no_grad():
        encoder.vectors[2] = 0.3 * encoder.vectors[0] + 0.7 * encoder.vectors[1]
        found = encoder(torch.full((3,), 0.4, dtype=torch.float64), torch.arange(3))
    for value in found.values():
        torch.testing.assert_close(value[2], 0.3 * value[0] + 0.7 * value[1])


def test_samples_follow_the_flow() -> None:
    """Of a flow whose speed is known: from noise straight to the class's grey, where Heun is exact."""

    class Known(torch.nn.Module):
        def forward(self, x, time, labels):
            grey = torch.where(labels == 10, 0.0, labels / 10 - 0.5)
            return (grey[:, None, None, None] - x) / (1 - time[:, None, None, None]).clamp(min=0.05)

    model = Generator(SMALL, 10, 16)
    model.speed = Known()
    labels = torch.tensor([0, 3, 9])
    noise = torch.randn(3, 1, 16, 16)
    for steps in (16, 64):
        found = model.sample(labels, noise, 1.0, steps)
        expected = ((labels / 10 - 0.5) + 1) / 2
        assert (found - expected[:, None, None, None]).abs().max() < 4 / steps
    further = model.sample(labels, noise, 2.0, 64)  # twice as far from no class's grey
    assert further.mean((1, 2, 3)).tolist() == pytest.approx([0.0, 0.3, 0.9], abs=0.03)


def test_the_drawings() -> None:
    data = Drawings.of("digits")
    assert data.classes == 10 and data.pictures.shape[1:] == (1, 16, 16)
    assert len(data.pictures) + len(data.kept) == 1797
    assert all(0.75 < (data.labels == n).sum() / (data.kept_labels == n).sum() / 5 < 0.9 for n in range(10))
    assert data.pictures.min() >= 0 and data.pictures.max() <= 1
    flat = torch.cat((data.pictures, data.kept)).flatten(1)
    assert len(flat.unique(dim=0)) > 1790
    with pytest.raises(MetafilmError, match="unknown data 'x'; expected omniglot or digits"):
        generation.make(replace(SMALL, data="x"))


@pytest.mark.real
def test_the_drawings_of_omniglot() -> None:
    data = Drawings.of("omniglot")
    assert data.pictures.shape == (800, 1, 28, 28) and data.kept.shape == (200, 1, 28, 28)
    assert data.labels.bincount().tolist() == [16] * 50 and data.kept_labels.bincount().tolist() == [4] * 50


@pytest.mark.slow
def test_the_judge_knows_digits(tmp_path) -> None:
    data = Drawings.of("digits")
    model, known = judge(replace(SMALL, judging=150), data, tmp_path)
    assert known > 90
    again, same = judge(replace(SMALL, judging=150), data, tmp_path)
    assert same == known and torch.equal(model.last.weight, again.last.weight)


def test_shapes() -> None:
    assert UNet(8)(torch.zeros(2, 1, 28, 28)).shape == (2, 1, 28, 28)


def test_resumed_is_uninterrupted(resumes, tmp_path) -> None:
    resumes(generation, replace(SMALL, iterations=5, average=0.9, clip=1.0), tmp_path)


def test_a_run_and_its_records(through, monkeypatch) -> None:
    monkeypatch.setattr("scripts.conditioning.generation.SAMPLES", 2)
    changes = ["data=digits", "iterations=2", "width=8", "vector=8", "judging=2", "heun=1"]
    records, _ = through(generation, ["judge-accuracy"], "linear", changes)
    assert 0 <= records[0]["judge_on_drawings"] <= 100 and records[0]["condition_parameters"] > 0
