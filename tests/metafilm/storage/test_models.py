"""Weights files rebuild their learner exactly, or say in full why not."""

import os
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from metafilm.config.classes import Classes
from metafilm.config.config import Config
from metafilm.errors import CheckpointError, ConfigError
from metafilm.learner.build import build_learner, load_learner
from metafilm.storage import tensorfile
from metafilm.storage.models import load_state, read_classes, read_model, save_model, shipped_models
from metafilm.storage.run import RunDirectory

BUILD = {"image_shape": [1, 16, 16], "train_classes": 3, "mean": [0.1], "std": [1 / 3]}


@pytest.fixture(scope="module")
def config() -> Config:
    small = Config()
    return replace(
        small,
        seed=5,
        backbone=replace(small.backbone, width=4),
        encoder=replace(small.encoder, width=4),
        inner=replace(small.inner, steps=1),
        outer=replace(small.outer, auxiliary=0.1),
    )


@pytest.fixture
def saved(config, tmp_path):
    """A run directory with the weights of a learner, and the learner."""
    learner = build_learner(config, **BUILD)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(torch.randn(parameter.shape))
    with RunDirectory.open(tmp_path / "run", config) as run:
        save_model(run.model_file, learner.state_dict(), config, BUILD)
    return run, learner


def test_round_trip_to_the_last_bit(saved, config):
    run, learner = saved
    loaded = load_learner(run.path)
    assert loaded.config == config and not loaded.training
    expected, found = learner.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert load_learner(run.model_file).config == config
    _, _, build = read_model(run.model_file)
    assert build == BUILD


def test_equal_weights_make_equal_files(saved, config, tmp_path):
    run, learner = saved
    for _ in range(5):  # the order of metadata differs between writes
        save_model(tmp_path / "again.safetensors", learner.state_dict(), config, BUILD)
        assert (tmp_path / "again.safetensors").read_bytes() == run.model_file.read_bytes()


def test_tensors_of_any_layout_can_be_saved(config, tmp_path):
    shared = torch.randn(4, 6)
    state = {
        "a": shared,
        "b": shared,
        "turned": shared.T,
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    save_model(tmp_path / "m.safetensors", state, config, {})
    tensors, _, _ = read_model(tmp_path / "m.safetensors")
    assert all(torch.equal(tensors[name], value) for name, value in state.items())


def test_classes_go_with_the_weights_or_are_not_known(saved, config, tmp_path):
    run, learner = saved
    assert read_classes(run.model_file) is None
    classes = (
        Classes("omniglot", "lake", "train", ("a", "caf\udce9")),
        Classes("strokes", None, "train", ("b",)),
    )
    file = tmp_path / "named.safetensors"
    save_model(file, learner.state_dict(), config, BUILD, classes)
    assert read_classes(file) == classes
    tensors, metadata = tensorfile.read(file)
    for damaged in ("[1]", "{", '[{"names": []}]'):
        tensorfile.write(file, tensors, metadata | {"classes": damaged})
        with pytest.raises(CheckpointError, match="damaged list of classes"):
            read_classes(file)


def test_misfits_name_key_and_shapes(saved):
    run, learner = saved
    tensors = learner.state_dict()
    before = {name: value.clone() for name, value in tensors.items()}
    first, second = list(tensors)[:2]
    wrong = {name: value for name, value in tensors.items() if name != second} | {"stray": torch.zeros(2)}
    wrong[first] = torch.zeros(7, 7)
    with pytest.raises(CheckpointError) as caught:
        load_state(learner, wrong, run.model_file)
    text = str(caught.value)
    shape = list(before[first].shape)
    assert str(run.model_file) in text
    assert f"{first} is [7, 7], expected {shape}" in text
    assert f"{second} is missing, expected {list(before[second].shape)}" in text
    assert "stray has no place in the network, is [2]" in text
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


def test_files_that_are_no_models(saved, config, tmp_path):
    run, _ = saved
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(run.model_file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"broken\.safetensors is damaged"):
        load_learner(broken)
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="is not a metafilm model"):
        load_learner(tmp_path / "other.safetensors")
    safetensors.torch.save_file(
        {"a": torch.zeros(1)}, tmp_path / "task.safetensors", {"format": "metafilm-task"}
    )
    with pytest.raises(CheckpointError, match=r"a task is read by metafilm.Task.load, with its learner"):
        load_learner(tmp_path / "task.safetensors")
    metadata = {"format": "metafilm", "version": "99", "config": "{}", "build": "{}"}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "newer.safetensors", metadata)
    with pytest.raises(CheckpointError, match="has format version 99, this metafilm reads 1"):
        load_learner(tmp_path / "newer.safetensors")
    metadata |= {"version": "1", "config": '{"sead": 1}'}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata)
    with pytest.raises(ConfigError, match=r"odd\.safetensors.*\n.*did you mean --seed"):
        load_learner(tmp_path / "odd.safetensors")
    save_model(tmp_path / "strange.safetensors", {"a": torch.zeros(1)}, config, {"image_shop": 1})
    with pytest.raises(CheckpointError, match="has damaged metadata"):
        load_learner(tmp_path / "strange.safetensors")


def test_what_is_not_there(tmp_path, config, monkeypatch):
    with pytest.raises(
        CheckpointError, match=r"is neither a run directory, a \.safetensors file nor shipped"
    ):
        load_learner("omniglt-conv4")
    with pytest.raises(CheckpointError, match="is no run directory"):
        load_learner(tmp_path)
    RunDirectory.open(tmp_path / "run", config).close()
    with pytest.raises(CheckpointError, match="holds a run without weights yet"):
        load_learner(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    os.mkdir("here")
    with pytest.raises(CheckpointError, match="is no run directory"):
        load_learner("here")


def test_shipped_weights_load():
    for name, path in shipped_models().items():
        assert path.stat().st_size < 2_000_000
        assert load_learner(name).image_shape[0] == 1, name  # drawings are grey


def test_weights_from_before_the_ridge_heads_offset_went_still_load(make_learner, tmp_path) -> None:
    learner = make_learner(head={"name": "ridge"}, dtype=torch.float32)
    assert "head.offset" not in learner.state_dict()
    old = learner.state_dict() | {"head.offset": torch.tensor(0.3)}
    file = tmp_path / "old.safetensors"
    save_model(file, old, learner.config, {"image_shape": [1, 16, 16], "mean": [0.4], "std": [0.5]})
    for name, value in load_learner(file).state_dict().items():
        torch.testing.assert_close(value, learner.state_dict()[name], rtol=0, atol=0)
