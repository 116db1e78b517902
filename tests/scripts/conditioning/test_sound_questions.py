"""Questions about sounds: the smallest setting learns, resumes exactly, and its records are whole."""

from dataclasses import replace

import pytest
import torch
import yaml

from episodes.datasets.scenes import tone_scenes
from metafilm.errors import MetafilmError
from scripts.conditioning import running, sound_questions
from scripts.conditioning.sound_questions import KINDS, SYSTEM, Examples, Listener, Settings

ARMS = yaml.safe_load(SYSTEM.config.read_text())["arms"]
SMALL = Settings(scenes=24, width=16, blocks=2, state=16, sounds=8, iterations=40, warmup=5)


@pytest.fixture(scope="module")
def scenes():
    return tone_scenes.split("train", 24)


@pytest.fixture
def few(scenes, monkeypatch):
    """All splits are the same few scenes."""
    monkeypatch.setattr(tone_scenes, "split", lambda name, n=None: scenes)


def small(arm) -> Settings:
    """The arm, small."""
    settings = running.settings_of(SYSTEM.config, SMALL, arm)
    return replace(settings, scenes=24, width=16, sounds=8, iterations=40, learning_rate=5e-3)


@pytest.mark.parametrize("arm", ["both", "temporal"])
def test_its_loss_falls(arm, losses, few, tmp_path) -> None:
    found = losses(sound_questions, small(arm), tmp_path)
    assert sum(found[-5:]) < 0.8 * sum(found[:5])


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_answers_by_the_question(arm, scenes) -> None:
    torch.manual_seed(0)
    data, model = Examples.of(scenes), Listener(small(arm)).eval()
    if arm != "blind":
        torch.nn.init.normal_(model.reader.condition.multiplier)
    with torch.no_grad():
        logits = model(data.sounds[:1], data.questions[:1])
    assert logits.shape == (8, len(tone_scenes.ANSWERS))
    assert ((logits[0] - logits[1]).abs().max() > 1e-4) == (arm != "blind")


def test_axes() -> None:
    """x is time: a map of it varies along the last dimension alone."""
    model = Listener(replace(SMALL, axes=("x",)))
    seen = []
    model.near[0].register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    model(torch.zeros(2, 64, 128, dtype=torch.uint8), torch.ones(2, 1, 3, dtype=torch.int64))
    place = seen[0][0, 1]
    assert (place[0] == place).all() and torch.allclose(place[0], torch.linspace(-1, 1, 128))
    with pytest.raises(MetafilmError, match="coordinate maps of z; there are x"):
        Listener(replace(SMALL, axes=("z",)))


def test_resumed_is_uninterrupted(resumes, few, tmp_path) -> None:
    resumes(sound_questions, replace(SMALL, iterations=5, average=0.9), tmp_path)


def test_a_run_and_its_records(through, few) -> None:
    records, _ = through(
        sound_questions, ["accuracy"], "both", ["scenes=24", "iterations=2", "width=8", "state=8"]
    )
    (one,) = records
    assert set(KINDS) <= set(one) and 0 <= one["value"] <= 100
