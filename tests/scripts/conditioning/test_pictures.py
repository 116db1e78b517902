"""The systems' figures, of made-up records."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
from scripts.conditioning import pictures
from scripts.conditioning.sound_questions import KINDS


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """Name of a figure -> what is written in it, line by line."""
    monkeypatch.setattr(pictures, "DOCS", tmp_path)

    def read(name):
        root = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
        return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]

    return read


def records(metrics, arms, **more):
    return [
        {
            "arm": arm,
            "metric": metric,
            "value": 0.5 + i / 10,
            "ci95": 0.1,
            "setting": {"iterations": 9},
            "command": "python a.py train",
            **more,
        }
        for metric in metrics
        for i, arm in enumerate(arms)
    ]


def test_of_several_settings_the_arms_own_or_the_longest() -> None:
    short = {"arm": "a", "metric": "m", "setting": {"iterations": 5}, "command": "train --set iterations=5"}
    long = {**short, "setting": {"iterations": 50}, "command": "train --set iterations=50"}
    assert pictures.by_arm([long, short, {**short, "metric": "n"}], "m") == {"a": long}
    own = {**short, "setting": {"iterations": 20}, "command": "train --arm a"}
    assert pictures.by_arm([own, long, short], "m") == {"a": own}


def test_by_scenes_one_setting_is_chosen_for_all_metrics() -> None:
    def one(scenes, decay, metric, value, validation):
        setting = {"scenes": scenes, "decay": decay}
        return {
            "arm": "a",
            "setting": setting,
            "metric": metric,
            "value": value,
            "validation": validation,
        }

    found = [
        one(500, 0.1, "m", 1, 70),
        one(500, 0.1, "n", 2, 90),
        one(500, 0.2, "m", 9, 75),
        one(500, 0.2, "n", 9, 80),
        one(50, 0.2, "m", 3, 10),
        one(50, 0.2, "n", 4, 10),
        {**one(500, 0.1, "m", 0, 99), "arm": "b"},
    ]
    chosen = pictures.by_scenes(found, "a")
    assert list(chosen) == [50, 500]
    values = {scenes: {metric: one["value"] for metric, one in of.items()} for scenes, of in chosen.items()}
    assert values == {50: {"m": 3, "n": 4}, 500: {"m": 1, "n": 2}}


def test_visual_questions_shows_fewer_scenes_where_some_saw_fewer(texts) -> None:
    kinds, scene = ("non-relational", "relational"), np.zeros((8, 8, 3), np.uint8)
    whole = records(kinds, ("film-4", "mac"), setting={"iterations": 9, "scenes": 9800}, validation=60.0)
    pictures.visual_questions(whole, scene, ["how many? 2"])
    assert "how many? 2" in texts("visual-questions")
    assert "mac, relational" not in texts("visual-questions")
    fewer = [
        {**one, "setting": {"iterations": 9, "scenes": scenes}, "validation": 50.0}
        for one in whole
        for scenes in (250, 500)
    ]
    pictures.visual_questions(whole + fewer, scene, ["how many? 2"])
    assert all(f"{arm}, relational" in texts("visual-questions") for arm in ("film-4", "mac"))


def test_segmentation(texts) -> None:
    made = records(("miou-attribute", "miou-place"), ("film", "spatial"))
    images, masks = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), bool)
    pictures.segmentation(made, images, ["the reds on the left", "the blues"], masks, {"film": masks})
    assert "the reds" in texts("segmentation") and "spatial" in texts("segmentation")


def test_sound_questions(texts) -> None:
    made = records(("accuracy",), ("time", "none"), **dict.fromkeys(KINDS, 30.0))
    pictures.sound_questions(made, KINDS, np.zeros((64, 128), np.uint8), ["how many? 2", "which? c"])
    assert "how many? 2; which? c" in texts("sound-questions")
    assert all(f"{kind}" in texts("sound-questions") for kind in KINDS)


def test_generation(texts) -> None:
    made = records(("judge-accuracy",), ("linear", "mlp"), condition_parameters=123_456)
    pictures.generation(made, torch.rand(4, 8, 8), {"linear": torch.rand(4, 3, 8, 8)})
    assert "123 k" in texts("generation") and "drawn" in texts("generation")
