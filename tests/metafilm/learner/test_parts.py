"""A learner saved part by part: what is frozen, and its norms, are as they were."""

import json

import pytest
import torch
from torch import nn

from metafilm import CheckpointError, Gate, MetaFiLM, MetafilmError, film, heads, norms
from metafilm.backbones import Conv4, Pretrained
from metafilm.learner import load_learner
from metafilm.storage import tensorfile

pytest.importorskip("timm")
NAME, SHAPE = "timm:test_resnet", (3, 32, 32)


def around(backbone: nn.Module) -> MetaFiLM:
    shape = getattr(backbone, "image_shape", (1, 16, 16))
    head = heads.build("prototype", backbone.out_features, 2)  # type: ignore[arg-type]
    return MetaFiLM(backbone, head, image_shape=shape).eval()


def somebodys() -> nn.Module:
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    backbone.out_features = 4 * 14 * 14  # type: ignore[assignment]
    return backbone


@pytest.fixture
def again(tmp_path):
    """`again(learner, backbone, drop)`: what its file gives, without the entries ``drop``."""

    def reload(learner: MetaFiLM, backbone: nn.Module | None = None, drop: tuple[str, ...] = ()) -> MetaFiLM:
        path = tmp_path / "mine.safetensors"
        learner.save(path)
        tensors, metadata = tensorfile.read(path)
        described = json.loads(metadata["parts"])
        kept = {name: value for name, value in described.items() if name not in drop}
        tensorfile.write(path, tensors, {**metadata, "parts": json.dumps(kept)})
        return load_learner(path, backbone=backbone)

    return reload


def test_what_is_frozen_stays_frozen(again) -> None:
    learner = MetaFiLM.from_backbone(NAME, SHAPE, weights=None, steps=1, gate=False)
    assert list(learner.outer_parameters()) == ["head.log_scale"]
    found = again(learner)
    assert list(found.outer_parameters()) == ["head.log_scale"]
    assert not found.train().backbone.training
    older = again(learner, drop=("frozen", "norm"))
    assert len(older.outer_parameters()) > 20 and older.fingerprint() == learner.fingerprint()


def test_parts_of_a_network_too(again) -> None:
    learner = around(film.insert(somebodys()))
    learner.backbone[0].requires_grad_(False)
    learner.head.requires_grad_(False)
    found = again(learner, somebodys())
    assert list(found.outer_parameters()) == ["backbone.1.weight", "backbone.1.bias"]


@pytest.mark.parametrize("gate", [None, Gate(), Gate(steps=(1, 3), margin=2.0)])
def test_what_was_set_on_a_learner_of_settings_is_saved(make_learner, make_episode, tmp_path, gate) -> None:
    learner = make_learner(inner={"steps": 1, "first_order": True}).eval()
    learner.evaluation_steps, learner.views, learner.view_augment, learner.batch = 3, 2, "none", 2
    learner.copies, learner.query_copies, learner.copy_augment, learner.gate = 2, 1, "affine", gate
    learner.save(tmp_path / "mine.safetensors")
    again = load_learner(tmp_path / "mine.safetensors").double()
    for name in ("evaluation_steps", "views", "view_augment", "batch", "copies", "query_copies", "gate"):
        assert getattr(again, name) == getattr(learner, name), name
    episode = make_episode(tasks=1, ways=3, shots=3)
    torch.testing.assert_close(again(episode).predictions[-1], learner(episode).predictions[-1])
    plain = make_learner().eval()
    plain.save(tmp_path / "plain.safetensors")
    assert load_learner(tmp_path / "plain.safetensors").config == plain.config


def test_a_damaged_list_of_frozen_parameters(tmp_path) -> None:
    path = tmp_path / "mine.safetensors"
    around(film.insert(Conv4((1, 16, 16), 4))).save(path)
    tensors, metadata = tensorfile.read(path)
    described = {**json.loads(metadata["parts"]), "frozen": ["backbone.wings"]}
    tensorfile.write(path, tensors, {**metadata, "parts": json.dumps(described)})
    with pytest.raises(CheckpointError, match=r"no parameter 'backbone\.wings' to freeze"):
        load_learner(path)


@pytest.mark.parametrize("mode", norms.MODES)
def test_the_norms_of_a_converted_network(again, mode) -> None:
    torch.manual_seed(0)
    learner = around(film.insert(norms.convert(Pretrained(NAME, SHAPE), mode)))
    found = again(learner)
    assert norms.mode_of(found.backbone) == mode and not norms.foreign(found.backbone)
    images = torch.rand(3, *SHAPE)
    assert torch.equal(found.embed(images), learner.embed(images))
    older = again(learner, drop=("frozen", "norm"))
    assert norms.foreign(older.backbone)


def test_a_mode_that_was_set_by_hand(again) -> None:
    learner = around(film.insert(Conv4((1, 16, 16), 4)))
    for module in learner.backbone.modules():
        if isinstance(module, norms.Norm):
            module.mode = "transductive"
    assert again(learner).protocol == "transductive"


def test_the_norms_of_a_network_that_the_reader_brings(again) -> None:
    learner = around(film.insert(norms.convert(somebodys(), "support")))
    assert norms.mode_of(again(learner, norms.convert(somebodys(), "support")).backbone) == "support"
    expected = (
        r"with metafilm's norms in mode 'support', the one given is without metafilm's norms; .*convert"
    )
    with pytest.raises(CheckpointError, match=expected):
        again(learner, somebodys())
    again(learner, somebodys(), drop=("norm",))


def test_norms_that_no_file_can_rebuild(tmp_path) -> None:
    network = Pretrained(NAME, SHAPE)
    norms.convert(network.network.layer1, "support")
    with pytest.raises(MetafilmError, match=r"convert all \(metafilm\.norms\.convert\)"):
        around(film.insert(network)).save(tmp_path / "mine.safetensors")
