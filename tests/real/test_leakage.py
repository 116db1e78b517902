"""How many of Lake's test characters the shipped weights, trained on Vinyals' split, have seen."""

import pytest

import episodes
from metafilm.cli.eval import record


@pytest.mark.real("omniglot")
def test_lakes_test_shares_236_characters_with_vinyals_training():
    lake = set(episodes.load("omniglot", "test", scheme="lake").class_names)
    vinyals = set(episodes.load("omniglot", "train", scheme="vinyals").class_names)
    found = record("omniglot-conv4", episodes=2, scheme="lake")
    assert (found["training_classes_in_test"], found["test_classes"]) == (236, 659)
    assert len(lake & vinyals) == 236 and len(lake) == 659
    assert record("omniglot-conv4", episodes=2)["training_classes_in_test"] == 0
