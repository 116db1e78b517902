"""Segmentation by a phrase: the smallest setting learns, resumes exactly, and its records are whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from episodes.datasets.scenes import phrased_shapes
from scripts.conditioning import running, segmentation
from scripts.conditioning.segmentation import SYSTEM, Examples, Segmenter, Settings

ARMS = yaml.safe_load(SYSTEM.config.read_text())["arms"]
SMALL = Settings(scenes=40, width=8, state=16, pictures=4, iterations=30, warmup=5)


@pytest.fixture(scope="module")
def data() -> Examples:
    return Examples.of(phrased_shapes.split("train", 40))


def small(arm) -> Settings:
    """The arm, small."""
    settings = running.settings_of(SYSTEM.config, SMALL, arm)
    return replace(settings, scenes=40, width=8, pictures=4, iterations=30, learning_rate=5e-3)


@pytest.mark.parametrize("arm", ["film", "spatial"])
def test_its_loss_falls(arm, losses, tmp_path) -> None:
    found = losses(segmentation, small(arm), tmp_path)
    assert sum(found[-5:]) < 0.94 * sum(found[:5])


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_marks_by_the_phrase(arm, data) -> None:
    torch.manual_seed(0)
    model = Segmenter(small(arm)).eval()
    if arm != "none":
        torch.nn.init.normal_(model.chooser.condition.multiplier)
    with torch.no_grad():
        first, second = model(data.pictures[:1], data.phrases[:1, [0, 5]])
    assert first.shape == (64, 64)
    assert ((first - second).abs().max() > 1e-4) == (arm != "none")


@pytest.mark.parametrize("arm", ["film", "spatial", "coordinates"])
def test_what_tells_places_apart(arm) -> None:
    """On a picture of one colour plain FiLM puts out the same everywhere, and the others do not."""
    torch.manual_seed(0)
    model = Segmenter(small(arm)).eval()
    torch.nn.init.normal_(model.chooser.condition.multiplier)
    blank = torch.full((1, 64, 64, 3), 120, dtype=torch.uint8)
    with torch.no_grad():
        found = model(blank, torch.tensor([[[3, 4, 5]]]))[0]
    by_place = found.view(32, 2, 32, 2)  # a pixel's place among its four aside
    spread = (by_place.amax((0, 2)) - by_place.amin((0, 2))).max()
    assert (spread < 1e-4) == (arm == "film")


def test_overlap_and_loss() -> None:
    logits, masks = torch.full((3, 4, 4), -9.0), torch.zeros(3, 4, 4, dtype=torch.bool)
    logits[0, :2], masks[0, 1:3] = 9.0, True  # 4 of 12 pixels
    logits[1, 0, 0] = 9.0  # nothing is meant, something marked
    assert segmentation.overlap(logits, masks).tolist() == pytest.approx([1 / 3, 0, 1])
    right = torch.where(masks, 20.0, -20.0)
    assert segmentation.loss_of(right, masks) < 1e-3 < 1 < segmentation.loss_of(-right, masks)


def test_the_examples_are_the_scenes(data) -> None:
    scenes = phrased_shapes.split("train", 40)
    pictures, phrases, masks = data.some(torch.tensor([7, 3]))
    assert np.array_equal(masks.view(2, 8, 64, 64).numpy(), scenes.masks()[[7, 3]])
    assert np.array_equal(pictures.numpy(), scenes.images[[7, 3]])
    assert np.array_equal(phrases.numpy(), scenes.words()[[7, 3]])


def test_resumed_is_uninterrupted(resumes, tmp_path) -> None:
    resumes(segmentation, replace(SMALL, spatial=True, iterations=5, average=0.9), tmp_path)


def test_a_run_and_its_records(through, monkeypatch) -> None:
    real = phrased_shapes.split
    monkeypatch.setattr(phrased_shapes, "split", lambda name, n=None: real(name, min(n or 20, 20)))
    metrics = ["miou-attribute", "miou-place"]
    records, _ = through(segmentation, metrics, "film", ["scenes=20", "iterations=2", "width=8", "state=8"])
    assert all(0 <= one["above_half"] <= 1 for one in records)
