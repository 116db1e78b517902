"""Deviations per example, and deviations that vary over the map, against an example at a time."""

import pytest
import torch
import torchvision
from torch import nn

from metafilm import MetafilmError, film, norms
from metafilm.backbones import Conv4


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry, self.norm, self.exit = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.exit(torch.tanh(self.norm(self.entry(x))))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.GroupNorm(1, 5)
    )


# network, input, site -> sizes of its map
NETWORKS = {
    "convolutions": (convolutions, (6, 3, 8, 7), {"0": (6, 5), "1": (6, 5), "3": (4, 3), "4": (4, 3)}),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 3)),
        (6, 2, 9),
        {"0": (7,), "1": (7,), "3": (5,)},
    ),
    "channels-last": (Sequence, (6, 5, 6), {"entry": (5,), "norm": (5,)}),
    **{
        f"conv4-{mode}": (
            lambda mode=mode: Conv4((3, 16, 16), 4, mode),
            (6, 3, 16, 16),
            {f"blocks.{i}.norm": (16 >> i, 16 >> i) for i in range(4)},
        )
        for mode in ("running", "group")
    },
    **{
        f"conv4-unpooled-{mode}": (
            lambda mode=mode: Conv4((3, 16, 16), 4, mode, pools=3),
            (6, 3, 16, 16),
            {f"blocks.{i}.norm": (16 >> i, 16 >> i) for i in range(4)},
        )
        for mode in ("running", "group")
    },
}


@pytest.fixture(params=NETWORKS)
def case(request, disturb):
    make, shape, maps = NETWORKS[request.param]
    torch.manual_seed(0)
    network = make().double()
    disturb(network)
    film.insert(network, list(maps))
    return network.eval(), torch.randn(shape, dtype=torch.float64), maps


def deviations(network, rows, maps=None):
    generator = torch.Generator().manual_seed(1)
    found = {}
    for site, features in film.sites(network).items():
        for name in film.names(site):
            shape = (rows, features, *(maps[site] if maps else ()))
            found[name] = 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return found


@pytest.mark.parametrize("over_the_map", [False, True], ids=["per-example", "over-the-map"])
def test_examples_together_are_each_alone(case, over_the_map) -> None:
    network, x, maps = case
    values = deviations(network, 6, maps if over_the_map else None)
    together = film.call(network, values, x)
    alone = [film.call(network, {k: v[b : b + 1] for k, v in values.items()}, x[b : b + 1]) for b in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert (together - network(x)).abs().max() > 1e-2
    order = torch.tensor([5, 0, 0, 3, 2, 1])
    mixed = film.call(network, values, x, rows=order)
    again = film.call(network, {k: v[order] for k, v in values.items()}, x)
    assert torch.equal(mixed, again)


def test_constant_maps_are_no_maps_and_a_size_of_1_is_repeated(case) -> None:
    network, x, maps = case
    values = deviations(network, 6)
    expected = film.call(network, values, x)
    for site, sizes in maps.items():
        gain, shift = film.names(site)
        values[gain] = values[gain].view(6, -1, *[1] * len(sizes)).expand(-1, -1, *sizes)
        values[shift] = values[shift].view(6, -1, *[1] * len(sizes))
    torch.testing.assert_close(film.call(network, values, x), expected)
    zero = {k: torch.zeros_like(v) for k, v in values.items()}
    torch.testing.assert_close(film.call(network, zero, x), network(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "dim"), [((4, 3, 2, 5), 1), ((4, 3, 5), 1), ((4, 5, 3), -1), ((4, 2, 5, 3), -1)]
)
def test_modulate_over_the_map_against_loops(shape, dim) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    sizes = shape[2:] if dim == 1 else shape[1:-1]
    gain = torch.randn(2, 3, *sizes, dtype=torch.float64)
    shift = torch.randn(2, 3, dtype=torch.float64)
    expected = torch.empty_like(x)
    for row in range(4):
        for channel in range(3):
            index = (row, channel) if dim == 1 else (row, ..., channel)
            expected[index] = gain[row // 2, channel] * x[index] + shift[row // 2, channel]
    torch.testing.assert_close(film.modulate(x, gain, shift, dim), expected)
    assert torch.autograd.gradcheck(
        lambda *values: film.modulate(*values, dim), [v.requires_grad_() for v in (x, gain, shift)]
    )


@pytest.mark.parametrize("mode", ["running", "support", "transductive"])
@pytest.mark.parametrize("over_the_map", [False, True])
def test_a_batch_that_shares_its_statistics(mode, over_the_map, disturb) -> None:
    """A metafilm norm in training, a condition per example: PyTorch's batch norm, and FiLM behind it."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(2, 4, 3), norms.Norm(4, mode), nn.ReLU()).double()
    disturb(ours)
    theirs = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).double()
    theirs.load_state_dict(ours.state_dict())
    for network in (ours, theirs):
        film.insert(network, ["1"]).train()
    x = torch.randn(6, 2, 7, 7, dtype=torch.float64)
    values = deviations(ours, 6, {"1": (5, 5)} if over_the_map else None)
    with norms.layout(shared=True, record=True):
        found = film.call(ours, values, x)
    torch.testing.assert_close(found, film.call(theirs, values, x))
    if mode == "running":
        norms.commit(ours)
        torch.testing.assert_close(ours[1].running_var, theirs[1].running_var)
    if not over_the_map:
        with pytest.raises(MetafilmError, match=r"laid out for 1; .*layout\(shared=True\)"):
            film.call(ours, values, x)


def test_one_of_the_two_alone(case) -> None:
    network, x, _ = case
    values = deviations(network, 6)
    for kind in (film.GAIN, film.BIAS):
        part = {k: v for k, v in values.items() if k.endswith(kind)}
        whole = {k: v if k in part else torch.zeros_like(v) for k, v in values.items()}
        torch.testing.assert_close(film.call(network, part, x), film.call(network, whole, x))


def test_errors() -> None:
    network = film.insert(torchvision.models.resnet18(num_classes=3), "last").eval()
    x = torch.rand(2, 3, 32, 32)
    name = film.names("layer4.1.bn2")[0]
    with pytest.raises(
        MetafilmError, match=r"shape \(2, 512, 7, 7\), the site puts out maps for \(T, 512, 1, 1\)"
    ):
        film.call(network, {name: torch.zeros(2, 512, 7, 7)}, x)
    with pytest.raises(MetafilmError, match=r"\(2, 512, 3\), the site puts out maps for \(T, 512, 1, 1\)"):
        film.call(network, {name: torch.zeros(2, 512, 3)}, x)
    with pytest.raises(MetafilmError, match="2 rows can't be shared evenly by 3 tasks"):
        film.call(network, {name: torch.zeros(3, 512, 1, 1)}, x)
    gain, bias = film.names("layer4.1.bn2")
    with pytest.raises(MetafilmError, match=rf"numbers of tasks: 2 of '{gain}', 3 of '{bias}'; give all"):
        film.call(network, {gain: torch.zeros(2, 512), bias: torch.zeros(3, 512)}, torch.rand(6, 3, 32, 32))
    one = {gain: torch.zeros(2, 512), bias: torch.zeros(1, 512, 1, 1)}  # one for all is no other number
    assert film.call(network, one, x).shape == (2, 3)
    for shape in ((2, 512), (1, 512), (2, 512, 1, 1)):
        with pytest.raises(MetafilmError, match=r"hold those of one task, \(512,\); fold one task's"):
            film.fold(network, {name: torch.zeros(shape)})
