"""``torch.func``'s transforms and forward-mode differentiation on the built-in backbones: what autograd, a
loop or finite differences give."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap
from torch.nn import functional as F

from metafilm import MetafilmError, film, norms
from metafilm.backbones import Conv4, ResNet12

# PyTorch loads its rules for forward mode by a function that it deprecates
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

BACKBONES = {"conv4": Conv4, "resnet12": ResNet12}
CASES = [(name, mode) for name in BACKBONES for mode in norms.MODES]
Films = dict[str, Tensor]
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
TASKS, ROWS = 2, 3


@pytest.fixture(params=CASES, ids="-".join)
def loss(request) -> Iterator[Callable[[Films], Tensor]]:
    """Deviations -> a loss of features of fixed images; gains of both signs, running averages not 0 and 1."""
    name, mode = request.param
    torch.manual_seed(0)
    network = film.insert(BACKBONES[name]((1, 16, 16), 2, mode)).double().eval()
    for module in network.modules():
        if isinstance(module, norms.Norm):
            torch.nn.init.uniform_(module.weight, -1, 2)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    images = torch.randn(TASKS * ROWS, 1, 16, 16, dtype=torch.float64)
    weights = torch.randn(TASKS * ROWS, network.out_features, dtype=torch.float64)

    def of(films: Films) -> Tensor:
        features = functional_call(network, films, (images,))
        return (features * weights).sum().tanh() + (features**2).mean()

    of.network = network  # type: ignore[attr-defined]
    of.images = images  # type: ignore[attr-defined]
    with norms.layout(support=4):
        yield of


def deviations(network, tasks: int | None = None, scale: float = 0.3) -> Films:
    lead = () if tasks is None else (tasks,)
    return {
        name: torch.randn(*lead, *value.shape, dtype=torch.float64) * scale
        for name, value in film.parameters(network).items()
    }


def by_autograd(loss, films: Films, create_graph: bool = False) -> Films:
    films = {name: value if value.requires_grad else value.requires_grad_() for name, value in films.items()}
    found = torch.autograd.grad(loss(films), list(films.values()), create_graph=create_graph)
    return dict(zip(films, found, strict=True))


def test_grad(loss) -> None:
    films = deviations(loss.network)
    found = grad(loss)(films)
    torch.testing.assert_close(found, by_autograd(loss, films), **TIGHT)


def test_grad_of_grad(loss) -> None:
    """A MAML outer gradient, and a product with the Hessian."""
    films, direction = deviations(loss.network), deviations(loss.network)

    def after_a_step(gradient, films):
        inner = gradient(films)
        return loss({name: value - 0.1 * inner[name] for name, value in films.items()})

    found = grad(lambda films: after_a_step(grad(loss), films))(films)
    expected = by_autograd(lambda films: after_a_step(lambda f: by_autograd(loss, f, True), films), films)
    torch.testing.assert_close(found, expected, **TIGHT)

    product = vjp(grad(loss), films)[1](direction)[0]
    inner = by_autograd(loss, films, True)
    expected = torch.autograd.grad(
        list(inner.values()), list(films.values()), list(direction.values()), allow_unused=True
    )
    torch.testing.assert_close(tuple(product.values()), expected, **TIGHT)
    plain = {name: value.detach() for name, value in films.items()}
    forward = jvp(grad(loss), (plain,), (direction,))[1]
    torch.testing.assert_close(forward, product, **TIGHT)


def test_jacrev_of_grad(loss) -> None:
    films = deviations(loss.network)
    name = list(films)[2]
    found = jacrev(lambda value: grad(loss)({**films, name: value})[name])(films[name])
    inner = by_autograd(loss, films, True)[name]
    expected = [torch.autograd.grad(g, films[name], retain_graph=True)[0] for g in inner]
    torch.testing.assert_close(found, torch.stack(expected), **TIGHT)


def test_vmap(loss) -> None:
    films = deviations(loss.network, 3)
    each = [{name: value[i] for name, value in films.items()} for i in range(3)]
    torch.testing.assert_close(vmap(loss)(films), torch.stack([loss(one) for one in each]), **TIGHT)
    found = vmap(grad(loss))(films)
    for i, one in enumerate(each):
        expected = by_autograd(loss, one)
        torch.testing.assert_close({name: value[i] for name, value in found.items()}, expected, **TIGHT)


def test_vmap_over_deviations_and_images(loss) -> None:
    films = deviations(loss.network, TASKS)
    images = loss.images.unflatten(0, (TASKS, ROWS))
    with norms.layout(support=2):
        found = vmap(lambda films, x: functional_call(loss.network, films, (x,)))(films, images)
    with norms.layout(TASKS, support=2):
        expected = film.call(loss.network, films, loss.images)
    torch.testing.assert_close(found.flatten(0, 1), expected, **TIGHT)


def test_forward_mode(loss) -> None:
    films, direction = deviations(loss.network), deviations(loss.network, scale=1.0)
    step = 1e-6

    def moved(by: float) -> Tensor:
        return loss({name: value + by * direction[name] for name, value in films.items()})

    expected = (moved(step) - moved(-step)) / (2 * step)
    value, slope = jvp(loss, (films,), (direction,))
    torch.testing.assert_close(value, loss(films), **TIGHT)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-8)
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(value, direction[name]) for name, value in films.items()}
        tangent = forward_ad.unpack_dual(loss(duals)).tangent
    torch.testing.assert_close(tangent, slope, **TIGHT)


def test_vmap_over_a_graph_made_outside(loss) -> None:
    """vmap over a pass backward through autograd's graph."""
    films = deviations(loss.network)
    inner = by_autograd(loss, films, True)
    name = list(films)[2]
    rows = torch.eye(len(inner[name]), dtype=torch.float64)

    def row(weights: Tensor) -> Tensor:
        return torch.autograd.grad(inner[name], films[name], weights, retain_graph=True)[0]

    found = vmap(row)(rows)
    expected = [torch.autograd.grad(g, films[name], retain_graph=True)[0] for g in inner[name]]
    torch.testing.assert_close(found, torch.stack(expected), **TIGHT)


@pytest.mark.parametrize("mode", norms.MODES)
def test_by_the_kernels_in_float32_too(mode) -> None:
    """The ordinary pass runs on kernels in C; under a transform PyTorch's operations give the same."""
    torch.manual_seed(0)
    network = film.insert(Conv4((1, 16, 16), 4, mode))
    images = torch.randn(4, 1, 16, 16)

    def loss(films: Films) -> Tensor:
        return functional_call(network, films, (images,)).square().mean()

    films = {name: value.float() for name, value in deviations(network).items()}
    found, over = grad(loss)(films), vmap(grad(loss))({name: value[None] for name, value in films.items()})
    expected = by_autograd(loss, films)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close({name: value[0] for name, value in over.items()}, found, rtol=1e-4, atol=1e-5)
    weights = {name: value.detach() for name, value in network.named_parameters() if "film" not in name}
    slopes = grad(lambda own: functional_call(network, own, (images,)).square().mean())(weights)
    features = network(images).square().mean()
    own = [parameter for name, parameter in network.named_parameters() if "film" not in name]
    torch.testing.assert_close(
        list(slopes.values()), list(torch.autograd.grad(features, own)), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("asked, mode", [("record", "running"), ("capture", "support")])
def test_statistics_can_not_be_kept_under_a_transform(asked: str, mode: str) -> None:
    network = film.insert(Conv4((1, 16, 16), 2, mode))
    films = {name: value.detach() for name, value in film.parameters(network).items()}
    images = torch.rand(2, 1, 16, 16)
    with (
        norms.layout(**{asked: True}),
        pytest.raises(MetafilmError, match=rf"can't keep statistics.*layout\({asked}=False\)"),
    ):
        grad(lambda films: functional_call(network, films, (images,)).square().mean())(films)


def test_vmap_of_the_gradient_of_a_cross_entropy() -> None:
    """An inner loss through the network, differentiated and batched in one go."""
    network = film.insert(Conv4((1, 16, 16), 2, "group")).double()
    images, labels = torch.rand(4, 1, 16, 16).double(), torch.tensor([0, 1, 0, 1])

    def loss(films: Films) -> Tensor:
        return F.cross_entropy(functional_call(network, films, (images,)), labels)

    films = deviations(network, 2)
    found = vmap(grad(loss))(films)
    for i in range(2):
        one = by_autograd(loss, {name: value[i] for name, value in films.items()})
        torch.testing.assert_close({name: value[i] for name, value in found.items()}, one, **TIGHT)
