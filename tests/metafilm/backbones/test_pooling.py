"""Pooling by name, and Conv-4 without its fourth max-pool: against layers written out, on every path."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call, grad

from metafilm import InnerLoop, MetaFiLM, MetafilmError, film, norms
from metafilm.backbones import Conv4, ResNet12
from metafilm.backbones.pooling import Features
from metafilm.errors import ConfigError
from metafilm.heads import PrototypeHead
from metafilm.learner.build import load_learner

TASKS, ROWS, SUPPORT = 2, 5, 3
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def written_out(network: Conv4, x: Tensor, films: dict[str, Tensor]) -> Tensor:
    """Task by task and block by block, in the order convolution, norm, FiLM, ReLU, pooling."""
    done = []
    for task, maps in enumerate(x.chunk(TASKS)):
        for i in range(4):
            block = network.block(i)
            maps, norm = nn.functional.conv2d(maps, block.conv.weight, padding=1), block.norm
            if norm.mode == "group":
                maps = nn.functional.group_norm(maps, norm.groups, eps=norm.eps)
            elif norm.mode == "running" and not norm.training:
                mean, var = norm.running_mean, norm.running_var
                maps = (maps - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
            else:
                part = maps[:SUPPORT] if norm.mode == "support" else maps
                var, mean = torch.var_mean(part, (0, 2, 3), keepdim=True, correction=0)
                maps = (maps - mean) / (var + norm.eps).sqrt()
            maps = maps * norm.weight[:, None, None] + norm.bias[:, None, None]
            gain, shift = (films[name][task] for name in film.names(f"blocks.{i}.norm"))
            maps = maps * (1 + gain[:, None, None]) + shift[:, None, None]
            if i < 3 or network.last_relu:
                maps = maps.relu()
            if i < network.pools:
                maps = torch.stack([nn.functional.max_pool2d(one, 2) for one in maps])
        cells = maps.flatten(2)
        if network.pooling == "flatten2x2":
            whole = [size - size % 2 for size in maps.shape[2:]]
            corners = [maps[:, :, i : whole[0] : 2, j : whole[1] : 2] for i in (0, 1) for j in (0, 1)]
            done.append(torch.stack(corners).mean(0).flatten(1))
            continue
        done.append(
            {"flatten": cells.flatten(1), "mean": cells.mean(-1), "max": cells.amax(-1)}[network.pooling]
        )
    return torch.cat(done)


def made(
    pooling: str, pools: int, norm: str, dtype: torch.dtype = torch.float64, last_relu: bool = True
) -> Conv4:
    """Gains of both signs, running averages not 0 and 1."""
    torch.manual_seed(0)
    network = Conv4((2, 20, 17), 3, norm, pooling, pools, last_relu)
    film.insert(network)
    for module in network.modules():
        if isinstance(module, norms.Norm):
            nn.init.uniform_(module.weight, -1, 2)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.to(dtype)


def given(network: Conv4) -> tuple[Tensor, dict[str, Tensor]]:
    like = network.block(0).conv.weight
    films = {name: 0.4 * torch.randn(TASKS, 3).to(like) for name in film.parameters(network)}
    return torch.randn(TASKS * ROWS, 2, 20, 17).to(like), films


@pytest.mark.parametrize("norm", norms.MODES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("pooling", "pools", "last_relu"),
    [
        ("flatten", 2, True),
        ("flatten", 3, True),
        ("flatten2x2", 3, True),
        ("mean", 3, True),
        ("max", 4, True),
        ("flatten", 4, False),
        ("mean", 3, False),
    ],
)
def test_features_and_two_derivatives(pooling, pools, last_relu, norm, training) -> None:
    network = made(pooling, pools, norm, last_relu=last_relu).train(training)
    x, films = given(network)
    films = {name: value.requires_grad_() for name, value in films.items()}
    weights = [block.conv.weight for block in network.blocks]
    found = []
    with norms.layout(TASKS, SUPPORT):
        for features in (film.call(network, films, x), written_out(network, x, films)):
            loss = (features**2).mean() + features.sin().sum()
            first = torch.autograd.grad(loss, [*films.values(), *weights], create_graph=True)
            size = sum((one**2).sum() for one in first[: len(films)])
            found.append((features, *first, *torch.autograd.grad(size, weights)))
    assert found[0][0].shape == (TASKS * ROWS, network.out_features)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("last_relu", [True, False])
@pytest.mark.parametrize("norm", ["running", "support"])
def test_kernels_of_single_precision(norm, last_relu) -> None:
    network = made("mean", 3, norm, torch.float32, last_relu).to(memory_format=torch.channels_last).train()
    x, films = given(network)
    x = x.contiguous(memory_format=torch.channels_last)
    with norms.layout(TASKS, SUPPORT):
        found, exact = film.call(network, films, x), written_out(network.double(), x.double(), films)
    torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=2e-5)


def test_without_the_last_relu_bfloat16_is_rounded_as_with_it() -> None:
    found = []
    for last_relu in (True, False):
        network = made("mean", 3, "running", torch.float32, last_relu).eval()
        block = network.block(3)
        maps = torch.randn(8, 3, 10, 8).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        norm, pooled = block.norm, block.measure(maps.float())._replace(pooled=maps)
        exact = (
            norm.weight
            * (maps.double().movedim(1, -1) - norm.running_mean)
            / (norm.running_var.double() + norm.eps).sqrt()
        )
        exact = (exact + norm.bias).movedim(-1, 1)
        mine = norm.finish(pooled, last_relu)
        assert mine.dtype == torch.bfloat16
        above = exact > 0.01
        found.append(((mine.double() - exact) / exact)[above].abs().max().item())
    assert found == pytest.approx([2**-8, 2**-8], rel=0.2), "half of the last of eight bits"


@pytest.mark.parametrize("norm", norms.MODES)
def test_under_a_transform(norm) -> None:
    network = made("max", 3, norm).eval()
    x, films = given(network)
    films = {name: value[0].clone().requires_grad_() for name, value in films.items()}

    def loss(films):
        return (functional_call(network, films, (x,)) ** 2).sum()

    with norms.layout(support=SUPPORT):
        expected = torch.autograd.grad(loss(films), list(films.values()))
        torch.testing.assert_close(tuple(grad(loss)(films).values()), expected, **EXACT)


def test_averages_are_those_of_batch_norm() -> None:
    network = made("mean", 3, "running").train()
    x, _ = given(network)
    twin = norms.plain(film.remove(made("mean", 3, "running"))).train()
    with norms.layout(1, record=True):
        found = network(x)
    norms.commit(network)
    torch.testing.assert_close(found, twin(x), **EXACT)
    torch.testing.assert_close(network.block(3).norm.running_var, twin.block(3).norm.running_var, **EXACT)


@pytest.mark.parametrize("norm", norms.MODES)
def test_a_stem_that_ends_before_the_unpooled_block(norm) -> None:
    network = film.insert(Conv4((1, 16, 16), 3, norm, "mean", 3), "last").eval()
    x = torch.rand(4, 1, 16, 16)
    with norms.layout(2, 1):
        begun = network.stem(x)
        torch.testing.assert_close(network(begun), network(x))
    assert begun.block == 3


def test_mean_and_max_fit_any_size() -> None:
    for network, size in (
        (Conv4((1, 32, 32), 4, pooling="mean", pools=3), 8),
        (ResNet12((1, 32, 32), 2), 16),
    ):
        assert network(torch.rand(2, 1, 20, 24)).shape == (2, network.out_features)
        assert network.cells == (16 if size == 8 else 4)
    resnet = ResNet12((1, 32, 48), 2, pooling="flatten")
    assert resnet.out_features == 16 * 6 and resnet(torch.rand(2, 1, 32, 48)).shape == (2, 96)


def test_errors() -> None:
    with pytest.raises(
        MetafilmError, match="unknown pooling 'median'; expected one of flatten, flatten2x2, mean"
    ):
        Conv4((1, 28, 28), 4, pooling="median")
    with pytest.raises(MetafilmError, match="needs last maps of at least 2x2 cells, here they have 1x1"):
        Conv4((1, 28, 28), 4, pooling="flatten2x2")
    with pytest.raises(MetafilmError, match="2, 3 or 4 poolings, not 5"):
        Conv4((1, 28, 28), 4, pools=5)
    with pytest.raises(MetafilmError, match="images of 7x28 are too small for Conv-4's three poolings"):
        Conv4((1, 7, 28), 4, pools=3)


def test_settings_make_it_and_contradict(tiny_config, make_learner) -> None:
    learner = make_learner(backbone={"pooling": "mean", "pools": 3})
    assert (learner.backbone.pooling, learner.backbone.pools, learner.feature_size) == ("mean", 3, 4)
    assert make_learner(backbone={"name": "resnet12", "width": 2, "pooling": "max"}).feature_size == 16
    with pytest.raises(ConfigError, match=r"--backbone\.pooling is for conv4 and resnet12; mlp pools"):
        tiny_config(backbone={"name": "mlp", "pooling": "mean"})
    with pytest.raises(ConfigError, match=r"--backbone\.pools is for conv4; leave it at 4 for resnet12"):
        tiny_config(backbone={"name": "resnet12", "pools": 3})
    assert not make_learner(backbone={"last_relu": False}).backbone.last_relu
    with pytest.raises(ConfigError, match=r"--backbone\.last-relu is for conv4; leave it true for resnet12"):
        tiny_config(backbone={"name": "resnet12", "last_relu": False})


@pytest.mark.parametrize(("norm", "last_relu"), [("running", True), ("support", True), ("running", False)])
def test_a_folded_network_and_a_file_say_the_same(make_learner, norm, last_relu, tmp_path) -> None:
    backbone = {"pooling": "mean", "pools": 3, "norm": norm, "last_relu": last_relu}
    learner = make_learner(dtype=torch.float32, backbone=backbone, inner={"steps": 2}).eval()
    images = torch.rand(9, 1, 16, 16)
    task = learner.adapt(images[:6], [0, 1, 2] * 2)
    logits = task.logits(images[6:])
    torch.testing.assert_close(task.to_module()(images[6:]), logits, rtol=1e-4, atol=1e-4)
    learner.save(tmp_path / "model.safetensors")
    again = load_learner(tmp_path / "model.safetensors")
    assert (again.backbone.pooling, again.backbone.pools) == ("mean", 3)
    assert again.backbone.last_relu == last_relu
    x = again.prepare(images.unsqueeze(0))
    assert torch.equal(again.features(x, {}, 1, support=6), learner.features(x, {}, 1, support=6))


def test_files_from_before_load(make_learner, tmp_path) -> None:
    """Neither a configuration nor a list of parts names what it did not know."""
    by_config = make_learner(dtype=torch.float32)
    by_parts = MetaFiLM(film.insert(Conv4((1, 16, 16), 4)), PrototypeHead(0.5), image_shape=(1, 16, 16))
    for learner in (by_config, by_parts):
        learner.save(tmp_path / "new.safetensors")
        with safe_open(tmp_path / "new.safetensors", "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata())
        if "config" in metadata:
            config = json.loads(metadata["config"])
            assert config["backbone"].pop("pools") == 4 and config["backbone"].pop("pooling") is None
            assert config["backbone"].pop("last_relu")
            metadata["config"] = json.dumps(config)
        else:
            described = json.loads(metadata["parts"])
            for name in ("pools", "pooling", "last_relu"):
                del described["backbone"]["arguments"][name]
            metadata["parts"] = json.dumps(described)
        save_file(tensors, tmp_path / "old.safetensors", metadata)
        again = load_learner(tmp_path / "old.safetensors")
        assert again.fingerprint() == learner.fingerprint()
        assert (again.backbone.pooling, again.backbone.pools) == ("flatten", 4)


@pytest.mark.parametrize("pooling", ["flatten", "mean"])
def test_a_site_on_the_features_has_nothing_after_it(pooling) -> None:
    plain = Conv4((1, 32, 32), 3, pooling=pooling).eval()
    x = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        features = plain(x)
        network = film.insert(plain, ["features"])
        assert film.sites(network) == {"features": network.out_features}
        assert torch.equal(network(x), features)
        given = {name: torch.randn(2, network.out_features) for name in film.names("features")}
        gain, shift = given.values()
        expected = (1 + gain).repeat_interleave(2, 0) * features + shift.repeat_interleave(2, 0)
        with norms.layout(tasks=2):
            torch.testing.assert_close(film.call(network, given, x), expected)
            torch.testing.assert_close(film.call(network, given, network.stem(x)), expected)


def test_a_site_on_the_features_is_folded() -> None:
    torch.manual_seed(0)
    backbone = film.insert(Conv4((1, 16, 16), 4), ["features", "blocks.3.norm"])
    inner = InnerLoop(film.sites(backbone), 2, 0.1)
    learner = MetaFiLM(
        backbone, PrototypeHead(0.5), inner=inner, image_shape=(1, 16, 16), evaluation_steps=2
    ).eval()
    images = torch.rand(6, 1, 16, 16)
    task = learner.adapt(images, [0, 1, 2] * 2)
    assert any(value.any() for name, value in task.film.items() if name.startswith("features"))
    logits = task.logits(images)
    torch.testing.assert_close(task.to_module()(images), logits, rtol=1e-4, atol=1e-4)
    folded = film.fold(backbone, {name: value.squeeze(0) for name, value in task.film.items()})
    assert folded.features.weight.shape == (backbone.out_features,)
    assert not any("film" in name for name in folded.state_dict())
    x = learner.prepare(images.unsqueeze(0))
    torch.testing.assert_close(folded(x), film.call(backbone, task.film, x), rtol=1e-4, atol=1e-4)


def test_features_of_an_older_pickle_have_no_weights() -> None:
    features = Features(3)
    for name in ("weight", "bias"):
        del features._parameters[name]
    x = torch.rand(2, 3)
    assert torch.equal(copy.deepcopy(features)(x), x)
