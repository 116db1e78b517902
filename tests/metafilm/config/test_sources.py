"""From a configuration to episodes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

import episodes
from episodes import ClassPool, EpisodeSampler
from episodes.datasets import omniglot
from metafilm.config import sources as data
from metafilm.config.config import Config
from metafilm.errors import MetafilmError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(monkeypatch, pool) -> Config:
    """Loads the fixtures' pool for any data set's name; strokes has its first three classes."""
    monkeypatch.setattr(
        episodes, "load", lambda name, *_, **__: pool.subset([0, 1, 2]) if name == "strokes" else pool
    )
    settings = {
        "data": {"name": "omniglot"},
        "episodes": {"ways": [2, 3], "shots": [1, 2], "queries": 3, "augment": "shift"},
        "inner": {"steps": 1, "views": 2},
        "evaluation": {"shots": 4},
    }
    return Config.from_dict(settings)


def test_training_episodes(config) -> None:
    source = data.training_source(config)
    episode = next(source.sampler.batches(range(4), None))
    assert episode.support_views.shape[1] == 2
    assert set(source.sampler.shapes(range(50))) == {(2, 1), (2, 2), (3, 1), (3, 2)}
    other = data.training_source(replace(config, seed=1)).sampler[0]
    assert not torch.equal(other.support_images, source.sampler[0].support_images)


def test_views_are_drawn_where_an_inner_loop_wants_them(config) -> None:
    def views(**sections):
        changed = Config.from_dict(config.to_dict() | sections)
        return data.training_source(changed).sampler[0].support_views

    assert views() is not None
    assert views(inner={"steps": 0}) is None
    assert views(inner={"steps": 1, "views": 0}) is None
    assert views(head={"name": "linear"}, episodes={"ways": 3, "shots": 1, "queries": 3}) is None


def test_evaluation_episodes_are_plain(config, pool) -> None:
    trained = data.training_source(config).sampler[0]
    config = replace(config, episodes=replace(config.episodes, warp=True))
    assert not torch.equal(data.training_source(config).sampler[0].query_images, trained.query_images)
    source = data.evaluation_source(config, "val")
    episode = source.sampler[0]
    assert (episode.ways, episode.shots, episode.queries) == (2, 4, 3)
    assert episode.support_views is None
    torch.testing.assert_close(episode.query_images[0], pool.images[episode.query_ids[0]].float() / 255)
    wide = data.evaluation_source(config, "val", ways=5, shots=2, queries=1, seed=7).sampler[0]
    assert (wide.ways, wide.shots, wide.queries) == (5, 2, 1)


def test_rotated_classes(config) -> None:
    changed = replace(config, data=replace(config.data, rotated_classes=True))
    source = data.training_source(changed)
    assert source.classes == 28 == source.build["train_classes"]


def test_what_a_learner_must_know(config, pool) -> None:
    build = data.training_source(config).build
    mean, std = pool.mean_std()
    assert build["image_shape"] == [1, 16, 16] and build["train_classes"] == 7
    assert build["mean"] == pytest.approx(torch.as_tensor(mean).tolist())
    assert build["std"] == pytest.approx(torch.as_tensor(std).tolist())


def test_black_images_have_a_standard_deviation_of_one() -> None:
    black = ClassPool.from_arrays(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), [0, 0, 1, 1])
    assert data.statistics((black,)) == ([0.0], [1.0])


def test_classes_of_a_mixture_are_counted_through(config) -> None:
    changed = replace(config, data=replace(config.data, name=("strokes", "omniglot")))
    source = data.training_source(changed)
    assert source.classes == 10
    episode = next(source.sampler.batches(range(40), None))
    found = source.global_classes(episode)
    assert set(episode.pool_ids.tolist()) == {0, 1}
    for pool_id, local, counted in zip(episode.pool_ids, episode.class_ids, found.class_ids, strict=True):
        assert torch.equal(counted, local + 3 * pool_id)
    alone = data.training_source(config)
    episode = alone.sampler[0]
    assert alone.global_classes(episode) is episode


def test_a_data_set_listed_twice_has_its_classes_once(config, monkeypatch) -> None:
    """Drawn in two ways, within an alphabet and across."""
    changed = replace(config, data=replace(config.data, name=("omniglot", "strokes", "omniglot")))
    source = data.training_source(changed)
    assert source.pools[0] is source.pools[2] and source.classes == 10
    episode = next(source.sampler.batches(range(60), None))
    found = source.global_classes(episode)
    for pool_id, local, counted in zip(episode.pool_ids, episode.class_ids, found.class_ids, strict=True):
        assert torch.equal(counted, local + (7 if pool_id == 1 else 0))


def mixture(**sections) -> Config:
    settings = {
        "data": {"name": ["omniglot", "strokes"], "weights": [1, 3]},
        "episodes": {"ways": 2, "queries": 2, "augment": ["shift", "none"], "style": ["negative", "none"]},
        "outer": {"one_domain": True, "meta_batch": 3},
    }
    return Config.from_dict(settings | sections)


def test_each_data_set_of_a_mixture_in_its_own_way(config, pool) -> None:
    source = data.training_source(mixture())
    episode = source.sampler.batch(range(600))
    runs = episode.pool_ids.view(-1, 3)
    assert (runs == runs[:, :1]).all(), "a meta-batch is one domain's"
    assert runs[:, 0].double().mean().item() == pytest.approx(0.75, abs=0.08)
    for t, p in enumerate(episode.pool_ids.tolist()):
        plain = torch.stack([source.pools[p].images[row] for row in episode.query_ids[t].tolist()]) / 255
        assert torch.equal(plain, episode.query_images[t]) == (p == 1)


def test_validation_draws_the_data_sets_alike_and_without_augmentation(config) -> None:
    sampler = data.evaluation_source(mixture(), "val").sampler
    episode = sampler.batch(range(600))
    assert episode.pool_ids.double().mean().item() == pytest.approx(0.5, abs=0.07)
    assert not (episode.pool_ids.view(-1, 3) == episode.pool_ids.view(-1, 3)[:, :1]).all()
    for t, p in enumerate(episode.pool_ids.tolist()):
        pixels = torch.stack([sampler.pools[p].images[row] for row in episode.query_ids[t].tolist()]) / 255
        expected = pixels if p == 1 else 1 - pixels
        torch.testing.assert_close(episode.query_images[t], expected)


def test_one_data_set_in_the_place_of_a_mixture(config) -> None:
    for name, style, augment in (("omniglot", "negative", "shift"), ("strokes", "none", "none")):
        found = data.on_data(mixture(), name, 16)
        assert (found.data.names, found.data.weights, found.data.image_size) == ((name,), None, 16)
        assert (found.episodes.style, found.episodes.augment) == (style, augment)
    other = data.on_data(mixture(), "miniimagenet", None)
    assert (other.episodes.style, other.episodes.augment) == ("none", "none"), "they differ: the default"
    same = data.on_data(mixture(episodes={"style": ["edges", "edges"]}), "miniimagenet", None)
    assert same.episodes.style == "edges"
    assert data.on_data(config, "strokes", None).episodes.augment == "shift", "one for all stays"


def test_the_runs_own_data_sets_keep_scheme_and_turns_and_no_other_gets_them(config) -> None:
    settings = {"scheme": "lake-val", "rotated_classes": True, "classes": 3}
    alone = Config.from_dict({"data": {"name": "omniglot", **settings}}).data
    mixed = Config.from_dict({"data": {"name": ["omniglot", "strokes"], **settings}}).data

    def found(data_settings, name: str) -> tuple:
        data_ = data.on_data(replace(config, data=data_settings), name, 16).data
        return data_.scheme, data_.rotated_classes, data_.classes

    assert found(alone, "omniglot") == found(mixed, "omniglot") == ("lake-val", True, 3)
    assert found(mixed, "strokes") == (None, True, 3), "it has no schemes"
    assert found(alone, "strokes") == found(mixed, "folder:pictures") == (None, False, None)


def test_a_mixtures_scheme_is_that_of_those_that_have_it(pool, monkeypatch) -> None:
    asked = {}

    def load(name, *_, scheme, **__) -> ClassPool:
        asked[name] = scheme
        return pool

    monkeypatch.setattr(episodes, "load", load)

    def loaded(scheme: str, *names: str) -> dict:
        asked.clear()
        data.load_pools(Config.from_dict({"data": {"name": list(names), "scheme": scheme}}), "train")
        return dict(asked)

    assert loaded("random:3", "omniglot", "strokes") == {"omniglot": "random:3", "strokes": None}
    assert loaded("split:7", "omniglot", "folder:a") == {"omniglot": None, "folder:a": "split:7"}
    with pytest.raises(MetafilmError, match=r"--data\.scheme is vinyls, which none of omniglot, strokes has"):
        loaded("vinyls", "omniglot", "strokes")


def test_grey_and_coloured_pictures_of_any_size_in_one_mixture(tmp_path, monkeypatch) -> None:
    """Omniglot's layout, generated strokes and a folder of photographs."""
    generator = np.random.default_rng(0)
    layout = {"images_background": ["character01", "character02"], "images_evaluation": ["character03"]}
    for part, characters in layout.items():
        for character in characters:
            folder = tmp_path / "omniglot" / part / "Greek" / character
            folder.mkdir(parents=True)
            for drawing in range(20):
                ink = Image.fromarray(generator.integers(0, 2, (105, 105), np.uint8) * 255).convert("1")
                ink.save(folder / f"00{character[-2:]}_{drawing + 1:02d}.png")
    monkeypatch.setattr(omniglot, "CHARACTERS", {part: len(names) for part, names in layout.items()})
    monkeypatch.setattr(
        omniglot, "published_split", lambda name: {"train": ("Greek/character01", "Greek/character02")}
    )
    for c in range(4):
        folder = tmp_path / "photographs/train" / f"class{c}"
        folder.mkdir(parents=True)
        for i in range(5):
            Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i}.png")
    config = Config.from_dict(
        {
            "data": {"name": ["omniglot", "strokes", f"folder:{tmp_path}/photographs"], "image_size": 32},
            "episodes": {
                "ways": 2,
                "shots": [1, 2],
                "queries": 3,
                "within_group": [True, False, False],
                "style": ["none", "known-strokes", "none"],
            },
        }
    )
    source = data.training_source(config, tmp_path)
    assert source.sampler.domains == ("omniglot", "strokes", "photographs")
    assert source.build["image_shape"] == [3, 32, 32]
    seen = set()
    for episode in source.sampler.batches(range(40)):
        for images, p in zip(episode.query_images, episode.pool_ids.tolist(), strict=True):
            assert images.shape == (6, 3, 32, 32)
            assert bool((images == images[:, :1]).all()) == (p != 2), "grey is grey in three channels"
            seen.add((p, episode.shots))
    assert seen == {(p, shots) for p in range(3) for shots in (1, 2)}


def test_functions() -> None:
    config = Config.from_dict(
        {"data": {"name": "sinusoids"}, "head": {"name": "regression"}, "episodes": {"shots": 10}}
    )
    source = data.training_source(config)
    assert source.build["image_shape"] == [1] and source.build["train_classes"] == 0
    x = torch.cat([source.sampler[i].support_images.flatten() for i in range(200)])
    assert source.build["mean"] == pytest.approx([x.mean().item()], abs=0.3)
    assert source.build["std"] == pytest.approx([x.std().item()], abs=0.2)
    assert source.sampler[0].support_images.shape == (1, 10, 1)
    splits = [
        data.evaluation_source(config, split).sampler[0].support_labels for split in ("train", "val", "test")
    ]
    assert len({float(labels[0, 0]) for labels in [*splits, source.sampler[0].support_labels]}) == 4
    assert data.evaluation_source(config, "test", shots=3, queries=7).sampler[0].query_labels.shape == (
        1,
        7,
        1,
    )


def test_styles() -> None:
    assert data.style("none") is None
    assert data.style("known-strokes").num_uniforms > 0
    with pytest.raises(episodes.EpisodesError):
        data.style("nothing")


def test_classes_of_a_mixture_are_counted_where_the_episode_lies(pool) -> None:
    pools = (pool, replace(pool))
    source = data.Source(EpisodeSampler(pools, 2, 1, 1, 0), pools)
    episode = source.sampler.batch(range(8))
    assert episode.pool_ids is not None and episode.class_ids is not None
    expected = [
        [int(c) + 7 * int(p) for c in classes]
        for classes, p in zip(episode.class_ids, episode.pool_ids, strict=True)
    ]
    assert source.global_classes(episode).class_ids.tolist() == expected
    with FakeTensorMode() as mode:  # a pretended GPU
        there = episode._map(mode.from_tensor).to("cuda")
        assert source.global_classes(there).class_ids.device.type == "cuda"


def test_a_family_of_functions_is_added_in_the_registry_alone(tmp_path):
    """In a process of its own: one more entry, and its name is known, checked, listed and sampled."""
    code = """
import sys
from episodes.datasets import registry
from episodes.datasets.sinusoids import SinusoidSampler

def lines(*, shots, queries, seed):
    return SinusoidSampler(shots, queries, seed, amplitude=(7.0, 7.0))

registry.DATASETS["lines"] = registry._functions("lines", "made up", lines)
from metafilm.cli import main
from metafilm.config import Config
from metafilm.errors import ConfigError
from metafilm.config.sources import evaluation_source, training_source

regression = {"head": {"name": "regression"}, "backbone": {"name": "mlp"}}
config = Config.from_dict({"data": {"name": "lines"}, **regression})
for source in (training_source(config), evaluation_source(config, "val")):
    assert source.sampler.amplitude == (7.0, 7.0) and not source.pools
try:
    Config.from_dict({"data": {"name": "lines"}})
except ConfigError as error:
    assert "does not fit --data.name lines" in str(error)
assert main(["data", "list"]) == 0 and main(["data", "check", "lines"]) == 0
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "lines made up" in " ".join(ran.stdout.split()) and "nothing to check" in ran.stdout


def test_some_classes_are_the_first_of_a_shuffle(config, pool) -> None:
    def trained_on(count, seed=0, **changes):
        few = replace(config, seed=seed, data=replace(config.data, classes=count, **changes))
        return data.load_pools(few, "train")[0].class_names

    assert trained_on(None) == pool.class_names
    kept = [set(trained_on(count)) for count in (2, 4, 7)]
    assert [len(names) for names in kept] == [2, 4, 7] and kept[0] < kept[1] < kept[2]
    assert list(trained_on(4)) == sorted(trained_on(4)) == list(trained_on(4))
    assert len({trained_on(3, seed) for seed in range(5)}) > 1
    turned = trained_on(2, rotated_classes=True)
    assert len(turned) == 8 and {name.rpartition("/")[0] for name in turned} == kept[0]
    few = replace(config, data=replace(config.data, classes=2))
    assert data.evaluation_source(few, "val", ways=2).pools[0] is pool  # training's classes alone are fewer
    assert data.evaluation_source(few, "train", ways=2).pools[0].class_names == trained_on(2)
    with pytest.raises(MetafilmError, match=r"--data.classes is 8, but .* has 7 classes.* at most 7"):
        trained_on(8)
