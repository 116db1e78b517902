"""What a training knows of its classes, those of the weights that it starts from among them."""

from dataclasses import replace

import numpy as np
import pytest

from episodes import ClassPool, EpisodeSampler
from metafilm.config.classes import Classes
from metafilm.config.sources import Source
from metafilm.errors import CheckpointError, MetafilmError
from metafilm.learner.build import build_learner
from metafilm.storage.models import read_classes, save_model
from metafilm.training import data
from metafilm.training.tracking import Tracker

WEIGHTS = "begun.safetensors"


def pool(*names: str) -> ClassPool:
    images = np.random.default_rng(0).integers(0, 255, (4 * len(names), 1, 16, 16), np.uint8)
    return ClassPool.from_arrays(images, sorted(list(range(len(names))) * 4), list(names))


@pytest.fixture
def config(tiny_config, monkeypatch, tmp_path):
    """Of a training on a, b and c that validates on d, e and f, and starts from weights to be written."""

    def source(config, *args, seed=None, **kwargs) -> Source:
        of = pool("d", "e", "f") if config.data.validation_split in args else pool("a", "b", "c")
        return Source(EpisodeSampler(of, 3, 2, 2, config.seed if seed is None else seed), (of,))

    monkeypatch.setattr(data, "training_source", source)
    monkeypatch.setattr(data, "evaluation_source", source)
    monkeypatch.chdir(tmp_path)
    return tiny_config(data={"name": "omniglot", "scheme": "lake"}, backbone={"weights": WEIGHTS})


def begun(config, *classes: Classes, told: bool = True) -> None:
    """Write them, of a training on these."""
    plain = replace(config, backbone=replace(config.backbone, weights=None))
    build = {"image_shape": [1, 16, 16], "train_classes": 3}
    learner = build_learner(plain, **build)
    save_model(WEIGHTS, learner.state_dict(), plain, build, classes if told else None)


def of(*names: str) -> Classes:
    return Classes("omniglot", "vinyals", "train", names)


def test_validation_classes_that_the_first_weights_know_are_refused(config) -> None:
    begun(config, of("x", "e"))
    with pytest.raises(MetafilmError, match=r"1 of the 3 classes .* --backbone.weights begun.* 'e' for one"):
        data.open_data(config)
    allowed = replace(config, data=replace(config.data, allow_overlap=True))
    assert data.open_data(allowed).before == (of("x", "e"),)


def test_a_model_names_the_classes_of_both_trainings(config, run, tmp_path) -> None:
    begun(config, of("x", "y"))
    mine = Classes("omniglot", "lake", config.data.train_split, ("a", "b", "c"))
    trained = run(config, tmp_path / "run")
    assert read_classes(trained.model_file) == (mine, of("x", "y"))
    further = replace(config, backbone=replace(config.backbone, weights=str(tmp_path / "run")))
    assert read_classes(run(further, tmp_path / "further").model_file) == (mine, of("x", "y"))


@pytest.fixture(name="run")
def run_fixture(config):
    from metafilm.storage.run import RunDirectory
    from metafilm.training.run import train

    def run(config, folder) -> RunDirectory:
        with RunDirectory.open(folder, config) as directory:
            train(config, directory, Tracker(directory, config), progress=False)
        return directory

    return run


def test_weights_that_name_no_classes_are_warned_of_unless_their_data_tell(config, monkeypatch) -> None:
    begun(config, told=False)
    monkeypatch.setattr(data, "classes_again", lambda *_: None)
    with pytest.warns(UserWarning, match="does not say which classes it was trained on"):
        assert data.open_data(config).before == ()
    monkeypatch.setattr(data, "classes_again", lambda *_: (of("d"),))
    with pytest.raises(MetafilmError, match="'d' for one"):
        data.open_data(config)


def test_absent_weights_are_missed_before_anything_is_built(config) -> None:
    with pytest.raises(CheckpointError, match="begun"):
        data.open_data(config)
