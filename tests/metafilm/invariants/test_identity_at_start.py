"""With δ = 0 a FiLMed network is the plain network, bit for bit; a fresh learner is its backbone and head."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from metafilm import film, norms
from metafilm.backbones import MLP, Conv4, ResNet12
from metafilm.heads import prototypes
from metafilm.learner.build import build_backbone

IMAGE = (3, 16, 16)


class Sequence(nn.Module):
    """A Transformer encoder over [B, L, 8] with LayerNorm, averaged over L."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.encoder(x)).mean(1)


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 3), nn.GroupNorm(2, 4)
    )


NETWORKS = {
    **{
        f"conv4-{mode}": (lambda mode=mode: Conv4(IMAGE, 4, mode), (4, *IMAGE), "all") for mode in norms.MODES
    },
    **{
        f"resnet12-{mode}": (lambda mode=mode: ResNet12(IMAGE, 4, mode), (4, *IMAGE), "all")
        for mode in norms.MODES
    },
    "mlp": (lambda: MLP(5, (8, 8)), (4, 5), "all"),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), (2, 3, 32, 32), "all"),
    "resnet18-last": (lambda: torchvision.models.resnet18(num_classes=5), (2, 3, 32, 32), "last"),
    "transformer": (Sequence, (4, 5, 8), "all"),
    "conv1d-norms": (conv1d, (4, 2, 12), "all"),
    "conv1d-convolutions": (conv1d, (4, 2, 12), ["0", "3"]),
}


@pytest.fixture(params=NETWORKS)
def network(request, disturb):
    """(plain network, FiLMed copy, an input)."""
    make, shape, sites = NETWORKS[request.param]
    torch.manual_seed(0)
    plain = make()
    disturb(plain)
    filmed = film.insert(copy.deepcopy(plain), sites)
    return plain, filmed, torch.randn(shape)


@pytest.mark.parametrize("training", [False, True])
def test_zero_deviations_change_no_bit(network, training: bool) -> None:
    plain, filmed, x = network
    expected = plain.train(training)(x)
    filmed.train(training)
    state = copy.deepcopy(filmed.state_dict())
    assert film.sites(filmed)
    for deviations in (None, {}, film.zeros(filmed, 1)):
        filmed.load_state_dict(state)  # running averages that the last pass moved
        found = filmed(x) if deviations is None else film.call(filmed, deviations, x)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("training", [False, True])
def test_other_deviations_do(network, random_film, training: bool) -> None:
    plain, filmed, x = network
    with torch.no_grad():  # without gradients some modules take a fused path, which must not pass FiLM by
        found = film.call(filmed.train(training), random_film(filmed), x)
        assert (found - plain.train(training)(x)).abs().max() > 0.01


def test_a_checkpoint_of_the_plain_network_loads(network, random_film) -> None:
    plain, filmed, x = network
    for name, value in random_film(filmed).items():
        film.parameters(filmed)[name].data.copy_(value)
    for value in plain.state_dict().values():
        value.copy_(value * 0.9)
    filmed.load_state_dict(plain.state_dict(), strict=True)
    assert all(not value.any() for value in film.parameters(filmed).values())
    assert torch.equal(filmed.eval()(x), plain.eval()(x))
    assert set(plain.state_dict()) == set(filmed.state_dict()) - set(film.parameters(filmed))


def test_a_filmed_checkpoint_keeps_its_deviations(network, random_film) -> None:
    _, filmed, _ = network
    expected = random_film(filmed)
    for name, value in expected.items():
        film.parameters(filmed)[name].data.copy_(value)
    other = copy.deepcopy(filmed)
    for value in film.parameters(other).values():
        value.data.zero_()
    other.load_state_dict(filmed.state_dict())
    assert all(torch.equal(film.parameters(other)[name], value) for name, value in expected.items())


@pytest.mark.parametrize("norm", norms.MODES)
@pytest.mark.parametrize("backbone", ["conv4", "resnet12"])
@pytest.mark.parametrize("decoder", ["linear", "mlp", "gru"])
def test_a_fresh_learner_is_its_backbone_and_head(
    make_learner, make_episode, norm, backbone, decoder
) -> None:
    learner = make_learner(
        fresh=True,
        dtype=torch.float32,
        backbone={"name": backbone, "norm": norm},
        encoder={"decoder": decoder},
    ).eval()
    episode = make_episode(tasks=1)
    plain = build_backbone(learner.config, (1, 16, 16)).eval()
    plain.load_state_dict({k: v for k, v in learner.backbone.state_dict().items() if ".film." not in k})
    both = torch.cat((episode.support_images[0], episode.query_images[0]))
    both = ((both - 0.4) / 0.5).contiguous(memory_format=torch.channels_last)
    with norms.layout(1, support=6), torch.no_grad():
        features = plain(both)
        means = prototypes(features[None, :6], episode.support_labels, 3)
        expected = learner.head.score(features[None, 6:], means)
        found = learner(episode, all_stages=True)
    assert found.stages == ["identity", "encoder"]
    assert all(not value.any() for value in found.films[-1].values())
    assert torch.equal(found.predictions[0], expected)
    assert torch.equal(found.predictions[1], expected)


def test_a_fresh_encoder_learns_all_the_same(make_learner, make_episode) -> None:
    """The multiplier is zero and the decoder is not, so the first gradient is not zero."""
    for decoder in ("linear", "mlp", "gru"):
        learner = make_learner(fresh=True, encoder={"decoder": decoder})
        episode = make_episode()
        learner.head.loss(learner(episode).predictions[-1], episode.query_labels).mean().backward()
        assert learner.encoder.multiplier.grad.abs().min() > 0
