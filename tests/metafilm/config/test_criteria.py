"""A configuration asks for episodes that draw their criterion."""

from dataclasses import replace

import pytest
import torch

import episodes
from episodes import CriterionSampler, EpisodesError
from episodes.datasets.criteria import CRITERIA, load_criteria
from metafilm.config.classes import Classes, classes_of, require_disjoint
from metafilm.config.config import Config
from metafilm.config.shipped import load_config
from metafilm.config.sources import evaluation_source, training_source
from metafilm.errors import ConfigError, MetafilmError


@pytest.fixture(scope="module")
def pools():
    return {split: load_criteria(split, 16, images_per_character=8) for split in ("train", "val", "test")}


@pytest.fixture
def load(monkeypatch, pools):
    monkeypatch.setattr(episodes, "load", lambda name, split, **_: pools[split])


def made(**sections):
    settings = {"data": {"name": "criteria"}, "episodes": {"criteria": "all", "queries": 3}}
    for name, values in sections.items():
        settings[name] = settings.get(name, {}) | values
    return Config.from_dict(settings)


def test_training_and_evaluation_draw_criteria(load):
    config = made(episodes={"ways": [3, 5], "shots": [1, 2]}, evaluation={"ways": 5, "shots": 4})
    for source, split in ((training_source(config), "train"), (evaluation_source(config, "val"), "val")):
        assert isinstance(source.sampler, CriterionSampler)
        assert source.sampler.domains == CRITERIA and source.sampler.pool.split == split
    assert {(s, w) for s, w in training_source(config).sampler.shapes(range(50))} == {
        (w, s) for w in (3, 4, 5) for s in (1, 2)
    }
    episode = evaluation_source(config, "val").sampler[0]
    assert (episode.ways, episode.shots, episode.queries) == (5, 4, 3)
    again = evaluation_source(config, "val", ways=2, shots=1, queries=1, seed=3).sampler
    assert (again.ways, again.shots, again.queries, again.seed) == (2, 1, 1, 3)


def test_some_criteria(load):
    config = made(episodes={"criteria": ["ink", "size"]})
    assert evaluation_source(config, "test").sampler.domains == ("ink", "size")
    with pytest.raises(EpisodesError, match="can't be sorted by 'hue'"):
        training_source(made(episodes={"criteria": ["hue"]}))


def test_without_criteria_tasks_are_of_characters(load):
    config = made(episodes={"criteria": "none"})
    assert isinstance(training_source(config).sampler, episodes.EpisodeSampler)


def test_the_criterion_s_number_is_no_pool_s(load):
    """Class numbers of a mixture are counted through its pools; an episode by a criterion is of one pool."""
    source = training_source(made())
    episode = source.sampler.batch(range(12))
    assert source.global_classes(episode) is episode


@pytest.mark.parametrize(
    ("sections", "flag"),
    [
        ({"episodes": {"augment": "shift"}}, "--episodes.augment shift changes the place"),
        ({"episodes": {"augment": "affine"}}, "--episodes.augment affine changes the place"),
        ({"inner": {"steps": 1}}, "--inner.view-augment shift changes the place"),
        ({"inner": {"evaluation_steps": 1}}, "--inner.view-augment shift changes the place"),
    ],
)
def test_an_augmentation_that_changes_a_criterion_is_refused(load, sections, flag):
    with pytest.raises(MetafilmError, match=flag) as caught:
        training_source(made(**sections))
    assert "choose none or jitter" in str(caught.value)


def test_augmentations_that_leave_the_criteria_as_they_are(load):
    safe = made(episodes={"augment": "jitter"}, inner={"steps": 1, "views": 2, "view_augment": "jitter"})
    assert training_source(safe).sampler[0].support_views.shape[1] == 2
    alone = made(episodes={"augment": "affine", "criteria": ["ink"]})
    assert training_source(alone).sampler.augment is not None
    for harmless in ({"steps": 0}, {"steps": 1, "views": 0}):
        assert training_source(made(inner=harmless)).sampler[0].support_views is None
    # what augments training does nothing to evaluation
    assert evaluation_source(made(episodes={"augment": "shift"}), "val").sampler.augment is None
    with pytest.raises(MetafilmError, match="view-augment"):
        evaluation_source(made(inner={"steps": 1}), "val")


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"data": {"name": ["criteria", "strokes"]}}, "--episodes.criteria needs one data set"),
        ({"outer": {"auxiliary": 1.0}}, "--outer.auxiliary must be 0 with --episodes.criteria"),
        ({"episodes": {"within_group": True}}, "--episodes.within-group must be False"),
        ({"data": {"rotated_classes": True}}, "--data.rotated-classes must be False"),
        ({"episodes": {"rotation": "per-class"}}, "--episodes.rotation must be none"),
        ({"episodes": {"warp": True}}, "--episodes.warp must be False"),
        ({"episodes": {"style": "known-strokes"}}, "--episodes.style must be none"),
        ({"episodes": {"criteria": []}}, "--episodes.criteria is an empty list"),
        ({"episodes": {"criteria": "some"}}, "--episodes.criteria must be one of none, all or a list"),
    ],
)
def test_contradictions(sections, expected):
    with pytest.raises(ConfigError) as caught:
        made(**sections)
    assert any(problem.startswith(expected) for problem in caught.value.problems), caught.value.problems


def test_functions_have_no_criteria():
    with pytest.raises(ConfigError, match="needs one data set whose images have attributes"):
        made(data={"name": "sinusoids"}, head={"name": "regression"}, backbone={"name": "mlp"})


def test_values_are_classes_that_training_may_have_known(pools):
    config = made(episodes={"criteria": ["character", "ink"]})
    (train,), (test,) = (classes_of(config, split, [pools[split]]) for split in ("train", "test"))
    assert len(test.names) == 200 + 6 and {"ink 45 degrees", "stroke1000"} <= set(test.names)
    assert not test.known_to([train]) and test.known_to([test]) == test.names
    require_disjoint(config, [pools["train"]], [pools["val"]])
    # the same value of another attribute is another class
    paper = made(episodes={"criteria": ["paper"]})
    assert not test.known_to(classes_of(paper, "test", [pools["test"]]))
    with pytest.raises(MetafilmError, match=r"206 of the 206 classes"):
        require_disjoint(config, [pools["test"]], [pools["test"]])
    plain = replace(config, episodes=replace(config.episodes, criteria="none"))
    assert classes_of(plain, "test", [pools["test"]])[0].names == pools["test"].class_names


def test_omniglot_sorted_in_any_way_is_omniglot():
    tested = Classes("omniglot-criteria", None, "test", ("Angelic/character01", "alphabet Angelic"))
    training = Classes("omniglot", "vinyals", "train", ("Angelic/character01",))
    assert tested.known_to([training]) == ("Angelic/character01",)
    assert not tested.known_to([Classes("criteria", None, "train", ("Angelic/character01",))])


def test_the_shipped_configuration(load):
    config = load_config("criteria")
    assert config.episodes.criteria == "all" and config.data.name == "criteria"
    small = replace(config, episodes=replace(config.episodes, shots=(1, 2), queries=2))
    source = training_source(small)
    assert source.build["image_shape"] == [3, 16, 16]
    assert source.sampler[0].support_images.dtype == torch.float32
