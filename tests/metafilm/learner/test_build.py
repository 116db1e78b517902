"""From a configuration to a learner."""

import pytest
import torch

from metafilm import CheckpointError, ConfigError, MetaFiLM, MetafilmError, film, heads, norms
from metafilm.backbones import MLP, Conv4, ResNet12
from metafilm.config.config import Config
from metafilm.learner.build import build_learner


def build(shape=(1, 16, 16), train_classes=0, **sections):
    sections.setdefault("backbone", {"width": 4})
    return build_learner(Config.from_dict(sections), shape, train_classes)


def test_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(seed=3)
    assert torch.equal(torch.get_rng_state(), before), "the global random state is left as it was"
    torch.manual_seed(2)
    second, other = build(seed=3).state_dict(), build(seed=4).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.state_dict().items())
    assert not torch.equal(second["backbone.blocks.0.conv.weight"], other["backbone.blocks.0.conv.weight"])


@pytest.mark.parametrize(("name", "kind"), [("conv4", Conv4), ("resnet12", ResNet12)])
def test_backbones(name, kind) -> None:
    learner = build(backbone={"name": name, "width": 2, "norm": "group"})
    assert type(learner.backbone) is kind
    assert {m.mode for m in learner.backbone.modules() if hasattr(m, "mode")} == {"group"}


def test_regression() -> None:
    learner = build((1,), data={"name": "sinusoids"}, backbone={"name": "mlp"}, head={"name": "regression"})
    assert type(learner.backbone) is MLP and learner.regression
    assert learner.encoder.embed[0].in_features == 2, "the encoder reads (x, y)"
    assert list(film.sites(learner.backbone).values()) == [40, 40]


@pytest.mark.parametrize("name", [name for name in heads.HEADS if name != "regression"])
def test_heads(name) -> None:
    learner = build(head={"name": name, "scale": 3.0})
    if name != "linear":
        assert learner.head.log_scale.exp().item() == pytest.approx(3.0)
    assert type(learner.head).__name__.lower().startswith(name)


def test_first_logits_are_about_as_large_at_any_image_size() -> None:
    small, large = build((3, 16, 16)), build((3, 64, 64))
    ratio = small.head.log_scale.exp() / large.head.log_scale.exp()
    assert ratio.item() == pytest.approx((large.backbone.out_features / small.backbone.out_features) ** 0.5)


def test_parts_that_are_off() -> None:
    learner = build(encoder={"enabled": False}, film={"sites": "none"})
    assert learner.encoder is None and learner.inner is None and learner.auxiliary is None
    assert film.sites(learner.backbone) == {}
    assert build(train_classes=9).auxiliary is None
    assert build(train_classes=9, outer={"auxiliary": 0.1}).auxiliary.out_features == 9


def test_the_inner_loop() -> None:
    learner = build(inner={"steps": 2, "evaluation_steps": 5, "step_size": 0.3, "granularity": "feature"})
    assert [tuple(size.shape) for size in learner.inner.step_sizes] == [(2, 4)] * 8
    assert all((size == 0.3).all() and size.requires_grad for size in learner.inner.step_sizes)
    assert (learner.steps, learner.evaluation_steps) == (2, 5)
    later = build(inner={"evaluation_steps": 2})
    assert (later.steps, later.evaluation_steps) == (0, 2)
    assert not any(size.requires_grad for size in later.inner.step_sizes), "nothing would train them"


def test_statistics_of_the_images_are_its_own() -> None:
    config = Config.from_dict({"backbone": {"width": 4}})
    learner = build_learner(config, (3, 16, 16), 0, [0.1, 0.2, 0.3], [1.0, 2.0, 4.0])
    x = torch.rand(1, 2, 3, 16, 16)
    torch.testing.assert_close(learner.prepare(x)[1, 2], (x[0, 1, 2] - 0.3) / 4)
    assert torch.equal(build((3, 16, 16)).prepare(x), x[0])


def test_a_pretrained_backbone_from_the_settings(tmp_path) -> None:
    pytest.importorskip("timm")
    settings = {
        "data": {"name": "strokes", "image_size": 32},
        "backbone": {"name": "timm:test_resnet"},
        "inner": {"steps": 1, "optimiser": "adam", "step_size": 0.001, "proximal": 0.1},
        "outer": {"freeze": ["backbone", "head"]},
    }
    config = Config.from_dict(settings)
    learner = build_learner(config, (1, 32, 32), mean=[0.3], std=[0.2])
    assert learner.inner.optimiser == "adam" and learner.inner.proximal == 0.1
    # the network normalises images itself
    assert float(learner.mean.abs().max()) == 0 and float(learner.std.max()) == 1
    parts = {name.partition(".")[0] for name in learner.outer_parameters()}
    assert parts == {"encoder", "inner"}
    learner.save(tmp_path / "mine.safetensors")
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    assert again.fingerprint() == learner.fingerprint() and again.config == config


def test_weights_are_read_when_a_run_begins_and_not_when_its_own_are_loaded(tmp_path) -> None:
    timm = pytest.importorskip("timm")
    plain = timm.create_model("test_resnet")
    torch.save(plain.state_dict(), tmp_path / "weights.pt")
    settings = {"backbone": {"name": "timm:test_resnet", "weights": str(tmp_path / "weights.pt")}}
    config = Config.from_dict(settings)
    learner = build_learner(config, (3, 32, 32))
    name = "conv1.0.weight" if "conv1.0.weight" in plain.state_dict() else next(iter(plain.state_dict()))
    assert torch.equal(learner.backbone.network.state_dict()[name], plain.state_dict()[name])
    learner.save(tmp_path / "mine.safetensors")
    (tmp_path / "weights.pt").unlink()
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    assert again.fingerprint() == learner.fingerprint() and again.config == config


def test_a_network_begins_where_another_training_ended(tmp_path) -> None:
    begun = build(seed=1, film={"sites": "last"})
    own = film.parameters(begun.backbone)
    with torch.no_grad():
        for value in (*begun.backbone.buffers(), *own.values()):
            if value.dtype.is_floating_point:
                value.uniform_(0.1, 0.5)
        begun.mean.fill_(0.3)
        begun.std.fill_(0.2)
    begun.save(tmp_path / "begun.safetensors")
    sections = {"backbone": {"width": 4, "weights": str(tmp_path / "begun.safetensors")}}
    learner, random = build(seed=2, **sections), build(seed=2)
    images = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        expected = begun.eval().embed(images)  # its own deviations too
        torch.testing.assert_close(learner.eval().embed(images), expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(random.eval().embed(images), expected, atol=1e-2)
    values = film.parameters(learner.backbone).values()
    assert len(values) == 8 and all(value.eq(0).all() for value in values), "its own sites, at the identity"
    fresh = random.state_dict()
    for name, value in learner.state_dict().items():
        if name.partition(".")[0] not in ("backbone", "mean", "std"):
            assert torch.equal(value, fresh[name]), name
    learner.save(tmp_path / "mine.safetensors")
    (tmp_path / "begun.safetensors").unlink()
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    assert again.fingerprint() == learner.fingerprint()


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_a_network_of_grey_images_takes_colours_as_their_mean(tmp_path, name) -> None:
    of = {"name": name, "width": 4}
    build(backbone=of, seed=1).save(tmp_path / "grey.safetensors")
    grey, learner = (
        build(shape, backbone=of | {"weights": str(tmp_path / "grey.safetensors")}, seed=2).eval()
        for shape in ((1, 16, 16), (3, 16, 16))
    )
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        expected = grey.embed(images.mean(1, keepdim=True))
        torch.testing.assert_close(learner.embed(images), expected, rtol=1e-4, atol=1e-5)
    build((3, 16, 16), backbone=of).save(tmp_path / "coloured.safetensors")
    with pytest.raises(CheckpointError, match="the channels of its images"):
        build(backbone=of | {"weights": str(tmp_path / "coloured.safetensors")})


@pytest.mark.parametrize(
    ("sections", "shape", "differs"),
    [
        ({"width": 8}, (1, 16, 16), r"in blocks\.0\.conv\.weight, .*, \.\.\.;"),
        ({"name": "resnet12", "width": 4}, (1, 16, 16), r"blocks\.0"),
        ({"width": 4, "norm": "group"}, (1, 16, 16), r"statistics \(--backbone\.norm\);"),
        ({"width": 4, "last_relu": False}, (1, 16, 16), r"--backbone\.last-relu, there True, here False;"),
        ({"width": 4, "pools": 3, "pooling": "max"}, (1, 16, 16), r"--backbone\.pools, there 4, here 3;"),
    ],
)
def test_a_network_of_another_shape_is_none_to_begin_with(tmp_path, sections, shape, differs) -> None:
    file = tmp_path / "begun.safetensors"
    build().save(file)
    with pytest.raises(CheckpointError, match=f"is another than .* {differs}"):
        build(shape, backbone=sections | {"weights": str(file)})


def test_a_perceptron_of_another_activation_is_none_to_begin_with(tmp_path) -> None:
    file = tmp_path / "begun.safetensors"
    functions = {"data": {"name": "sinusoids"}, "head": {"name": "regression"}}
    curves = {"name": "mlp", "hidden": [4], "activation": "tanh"}
    build((1,), backbone=curves, **functions).save(file)
    begun = curves | {"weights": str(file)}
    build((1,), backbone=begun, **functions)
    with pytest.raises(CheckpointError, match=r"--backbone\.activation, there tanh, here relu"):
        build((1,), backbone=begun | {"activation": "relu"}, **functions)


def test_a_network_of_a_library_is_none_to_begin_with(tmp_path) -> None:
    pytest.importorskip("timm")
    file = tmp_path / "begun.safetensors"
    build_learner(Config.from_dict({"backbone": {"name": "timm:test_resnet"}}), (3, 32, 32)).save(file)
    with pytest.raises(CheckpointError, match="network of timm:test_resnet, not one of metafilm's own"):
        build((3, 32, 32), backbone={"width": 4, "weights": str(file)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": {"name": "keras:resnet"}}, "backbone.name keras:resnet is unknown"),
        ({"backbone": {"weights": "default"}}, "backbone.weights default is for networks of timm and torch"),
        ({"inner": {"optimiser": "rmsprop"}}, "inner.optimiser rmsprop is unknown"),
        ({"outer": {"freeze": ["wings"]}}, "outer.freeze"),
        (
            {"inner": {"steps": 1, "optimiser": "adam"}, "outer": {"compile": True}},
            "outer.compile traces plain inner steps alone",
        ),
        ({"film": {"modulation": "twice"}}, "film.modulation twice is unknown"),
        ({"film": {"modulation": "bounded"}, "inner": {"steps": 1}}, "film.modulation bounded keeps bounds"),
        (
            {"film": {"modulation": "raw"}, "encoder": {"enabled": False}, "inner": {"steps": 1}},
            "film.modulation raw needs a task encoder",
        ),
        (
            {"film": {"modulation": "gain"}, "encoder": {"kind": "constant"}},
            "film.modulation gain needs a task encoder",
        ),
        (
            {"film": {"modulation": "gain"}, "outer": {"compile": True}},
            "outer.compile knows --film.modulation film alone",
        ),
        (
            {"data": {"name": "sinusoids", "classes": 8}, "head": {"name": "regression"}},
            "data.classes must be empty for functions",
        ),
    ],
)
def test_settings_that_do_not_fit(settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(settings)


def test_the_norms_of_other_peoples_networks_are_kept_or_converted_as_the_settings_say() -> None:
    def backbone(norm: str, name: str = "torchvision:resnet18"):
        config = Config.from_dict({"backbone": {"name": name, "norm": norm}})
        return build_learner(config, (3, 32, 32)).train().backbone

    kept, converted = backbone("running"), backbone("support")
    assert norms.foreign(kept) and not any(module.training for module in norms.foreign(kept))
    assert not norms.foreign(converted) and norms.mode_of(converted) == "support"
    assert converted.state_dict().keys() == kept.state_dict().keys()
    with pytest.raises(MetafilmError, match=r"has none; use --backbone\.norm running"):
        backbone("group", "torchvision:squeezenet1_1")
