"""What validation leaves in the best weights' file."""

import torch

from episodes import EpisodeSampler
from metafilm.evaluation import centre, evaluate
from metafilm.learner.build import load_learner
from metafilm.training import validation


def test_the_training_classes_mean_lies_with_the_best_weights(run, tiny_config, pool, tmp_path) -> None:
    config = tiny_config(head={"transform": ["centre", "normalise"]}, outer={"average": 0.9})
    directory = run(config, tmp_path / "run")
    learner = load_learner(directory.path)
    found = learner.head.transform.mean.clone()
    assert found.abs().max() > 0.01
    centre(learner, EpisodeSampler(pool, 3, 2, 2, 0))
    # validation's sampler of training classes has a seed of its own
    torch.testing.assert_close(found, learner.head.transform.mean, rtol=0.02, atol=0.005)
    sections = tiny_config(head={"transform": ["centre"]}, pretrain={"iterations": 4, "batch": 8})
    state = run(sections, tmp_path / "pretrained").load_checkpoint()
    assert state is not None and state["learner"]["head.transform.mean"].abs().max() > 0.01


def test_validation_has_a_precision_of_its_own(run, tiny_config, tmp_path, monkeypatch) -> None:
    """Of every evaluation within a training: of tasks, of training classes, of the pre-trained network."""
    seen = []

    def spy(learner, *args, **named):
        found = evaluate(learner, *args, **named)
        seen.append((found["precision"], learner.autocast))
        return found

    monkeypatch.setattr(validation, "evaluate", spy)
    pretrain = {"iterations": 4, "batch": 8}
    run(tiny_config(pretrain=pretrain, evaluation={"precision": "bfloat16"}), tmp_path / "half")
    assert len(seen) >= 3 and set(seen) == {("bfloat16", False)}
    seen.clear()
    run(tiny_config(pretrain=pretrain, outer={"precision": "bfloat16"}), tmp_path / "whole")
    assert len(seen) >= 3 and set(seen) == {("float32", False)}
