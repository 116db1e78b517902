"""A short training on Omniglot learns; evaluation runs on miniImageNet."""

import pytest
import torch

import episodes
from metafilm import evaluate, load_config
from metafilm.config.config import Config
from metafilm.config.sources import evaluation_source, training_source
from metafilm.learner.build import build_learner
from metafilm.training.outer_loop import OuterLoop


@pytest.mark.real("omniglot")
def test_thirty_iterations_on_omniglot() -> None:
    """20 % is chance and random weights score about 56 %; well above both, on classes never seen."""
    settings = {
        "data": {"name": "omniglot", "scheme": "vinyals"},
        "episodes": {"ways": 10, "shots": 1, "queries": 5},
        "backbone": {"width": 32},
        "inner": {"steps": 1, "view_augment": "affine"},
        "outer": {"iterations": 30, "meta_batch": 2, "learning_rate": 0.01, "warmup": 5},
        "evaluation": {"ways": 5, "queries": 5},
    }
    config = Config.from_dict(settings)
    source = training_source(config)
    learner = build_learner(config, **source.build)
    test = evaluation_source(config, "test").sampler
    before = evaluate(learner, test, 30, progress=False)["accuracy"]
    loop = OuterLoop(learner, config, source)
    for iteration in range(30):
        loop.step(list(source.sampler.batches(loop.indices(iteration), 1)))
    after = evaluate(learner, test, 30, progress=False)
    assert after["accuracy"] > 65 and after["accuracy"] > before + 8
    assert after["stages"] == ["identity", "encoder", "step 1"] and after["protocol"] == "inductive"


@pytest.mark.real("miniimagenet")
def test_evaluation_on_miniimagenet() -> None:
    config = load_config("miniimagenet_5way_5shot")
    source = evaluation_source(config, "val", queries=2)
    assert source.pools[0].num_classes == 16 and source.pools[0].image_shape == (3, 84, 84)
    learner = build_learner(config, **source.build)
    found = evaluate(learner, source.sampler, 3, progress=False)
    assert 0 <= found["accuracy"] <= 100 and found["ci95"] >= 0 and found["episodes"] == 3
    episode = source.sampler[0]
    task = learner.adapt(episode.support_images[0], episode.support_labels[0])
    assert len(task.predict(episode.query_images[0])) == 10
    assert torch.isfinite(task.predict_proba(episode.query_images[0])).all()
    assert episodes.load("miniimagenet", "val").num_classes == 16
