"""What validation leaves in the best weights' file."""

import torch

from episodes import EpisodeSampler
from metafilm.evaluation import centre
from metafilm.learner.build import load_learner


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
