"""Networks of other people's making: norms that activate, networks without norms, what can't be folded."""

import copy
import threading

import pytest
import torch
import torchvision
from torch import nn

from metafilm import MetafilmError, film

timm = pytest.importorskip("timm")


def lively(network: nn.Module) -> nn.Module:
    """Weights and statistics off their first values, so that no activation or norm is trivial."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.mul_(0.5 + torch.rand(value.shape, generator=generator))
            elif name.endswith(("running_mean", "bias")):
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return network.double().eval()


MODELS = [
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "resnetv2_18d",
    "regnetx_002",
    "ghostnetv2_100",
    "hardcorenas_a",
    "resnet26t",
    "convnext_atto",
]


@pytest.mark.parametrize("name", MODELS)
def test_folded_is_unfolded_in_norms_that_activate_too(name, random_film) -> None:
    plain = lively(timm.create_model(name, num_classes=3))
    network = film.insert(copy.deepcopy(plain))
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(images), plain(images), rtol=0, atol=0)
        deviations = random_film(network, tasks=2)
        both = film.call(network, deviations, images)
        for task in range(2):
            own = {key: value[task] for key, value in deviations.items()}
            alone = film.call(network, own, images[2 * task : 2 * task + 2])
            torch.testing.assert_close(both[2 * task : 2 * task + 2], alone, rtol=1e-6, atol=1e-9)
            folded = film.fold(network, own)(images[2 * task : 2 * task + 2])
            scale = float(alone.abs().max())
            torch.testing.assert_close(folded / scale, alone / scale, rtol=1e-6, atol=1e-9)
            assert not torch.allclose(alone, plain(images[2 * task : 2 * task + 2]))
        copied = copy.deepcopy(network)
        torch.testing.assert_close(film.call(copied, deviations, images), both, rtol=0, atol=0)


def test_film_stands_between_norm_and_activation() -> None:
    """Against the formula: act(γ (x − μ) / σ + β), γ and β moved by δ."""
    layer = lively(timm.layers.BatchNormAct2d(3))
    network = film.insert(nn.Sequential(layer))
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    gain, bias = torch.tensor([-2.0, 0.5, 1.0]).double(), torch.tensor([0.3, -0.4, 0.0]).double()
    y = (x - layer.running_mean[:, None, None]) / (layer.running_var + layer.eps).sqrt()[:, None, None]
    y = layer.weight[:, None, None] * y + layer.bias[:, None, None]
    expected = ((1 + gain)[:, None, None] * y + bias[:, None, None]).relu()
    found = film.call(network, {"0.film.delta_gamma": gain, "0.film.delta_beta": bias}, x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto"])
def test_removing_gives_the_network_as_it_was(name) -> None:
    plain = timm.create_model(name, num_classes=3).eval()
    network = film.insert(copy.deepcopy(plain))
    for value in film.parameters(network).values():
        nn.init.constant_(value, 0.3)
    film.remove(network)
    images = torch.rand(1, 3, 64, 64)
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    torch.testing.assert_close(network(images), plain(images), rtol=0, atol=0)


def test_a_network_without_norms_is_modulated_at_its_convolutions() -> None:
    network = film.insert(torchvision.models.squeezenet1_1(num_classes=2))
    convolutions = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    assert list(film.sites(network)) == convolutions
    with pytest.raises(MetafilmError, match="neither norms nor convolutions"):
        film.insert(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


def test_a_lazy_norm_and_a_plain_weight_are_refused() -> None:
    with pytest.raises(MetafilmError, match="run the network once"):
        film.insert(nn.Sequential(nn.LazyBatchNorm2d()))
    network = film.insert(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    with pytest.raises(MetafilmError, match=r"no deviations '0.weight'"):
        film.call(network, {"0.weight": torch.zeros(2, 1, 1, 1)}, torch.rand(1, 1, 2, 2))


def test_threads_do_not_get_each_others_deviations(random_film) -> None:
    network = film.insert(torchvision.models.resnet18(num_classes=3)).eval()
    images = torch.rand(1, 3, 32, 32)
    tasks = [random_film(network, seed=seed) for seed in range(4)]
    with torch.no_grad():
        expected = [film.call(network, task, images) for task in tasks]
    wrong: list[int] = []

    def ask(i: int) -> None:
        with torch.no_grad():
            for _ in range(12):
                if not torch.equal(film.call(network, tasks[i], images), expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all((value == 0).all() for value in film.parameters(network).values())


def test_zeros_are_whole_while_another_thread_runs_the_network(random_film) -> None:
    network = film.insert(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))).eval()
    expected = film.zeros(network, 1)
    seen: list[film.FilmDict] = []

    def meanwhile(*_: object) -> None:
        thread = threading.Thread(target=lambda: seen.append(film.zeros(network, 1)))
        thread.start()
        thread.join()

    network[1].register_forward_hook(meanwhile)
    shared = random_film(network)["1.film.delta_gamma"].expand(3, 2)
    film.call(network, dict.fromkeys(expected, shared), torch.rand(3, 1, 2, 2))
    torch.testing.assert_close(seen, [expected])
