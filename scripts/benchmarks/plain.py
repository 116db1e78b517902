"""The network that the peers train, of PyTorch's own layers, and CAVIA's method written plainly.

The plain loop (Zintgraf et al., ICML 2019, arXiv:1810.03642) is both a system of the benchmark and the
reference that metafilm's meta-gradient is checked against before anything is timed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import ours
from .tasks import Setting, episode


class Conv4(nn.Module):
    """Four times 3×3 convolution, batch norm, ReLU, 2×2 max-pooling; then a linear layer.

    ``track``: keep running statistics; otherwise the batch's own serve in evaluation too. Its weights have
    the names and, given the same seed, the shapes of metafilm's.
    """

    def __init__(self, setting: Setting, track: bool = False) -> None:
        super().__init__()
        channels = [setting.channels, *[setting.width] * 4]
        self.blocks = nn.Sequential(*(_block(channels[i], setting.width, track) for i in range(4)))
        self.head = nn.Linear(setting.features, setting.ways)

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def _block(channels: int, width: int, track: bool) -> nn.Sequential:
    block = nn.Sequential()
    block.add_module("conv", nn.Conv2d(channels, width, 3, padding=1, bias=False))
    block.add_module("norm", nn.BatchNorm2d(width, track_running_stats=track))
    block.add_module("relu", nn.ReLU())
    block.add_module("pool", nn.MaxPool2d(2))
    nn.init.kaiming_normal_(block.conv.weight, mode="fan_out", nonlinearity="relu")
    return block


def build(setting: Setting, *, channels_last: bool = False, track: bool = False) -> Conv4:
    """With weights of seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Conv4(setting, track)
    return network.to(memory_format=torch.channels_last) if channels_last else network


Film = list[Tensor]
"""δγ and δβ of each block in turn, ``[C]`` each."""


def film_forward(network: Conv4, film: Film, x: Tensor) -> Tensor:
    """Logits under these deviations: FiLM between norm and ReLU."""
    for i, block in enumerate(network.blocks):
        x = block.norm(block.conv(x))
        x = x * (1 + film[2 * i])[:, None, None] + film[2 * i + 1][:, None, None]
        x = block.pool(block.relu(x))
    return network.head(x.flatten(1))


def film_adapt(
    network: Conv4, x: Tensor, y: Tensor, steps: int, step_size: float, *, precision: str, second_order: bool
) -> Film:
    """K gradient steps on the support loss from δ = 0."""
    film = [block.norm.weight.new_zeros(block.norm.num_features) for block in network.blocks for _ in (0, 1)]
    film = [value.requires_grad_() for value in film]
    for _ in range(steps):
        with autocast(precision):
            loss = F.cross_entropy(film_forward(network, film, x), y)
        gradients = torch.autograd.grad(loss, film, create_graph=second_order)
        film = [value - step_size * gradient for value, gradient in zip(film, gradients, strict=True)]
        if not second_order:
            film = [value.detach().requires_grad_() for value in film]
    return film


def autocast(precision: str) -> torch.autocast:
    """bfloat16 autocast on the CPU, or none."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def outer_gradient(network: Conv4, tasks, steps: int, step_size: float, precision: str = "float32") -> None:
    """Adds the mean over tasks of the query loss's gradient to the network's, one task after the other."""
    for t in range(tasks.tasks):
        film = film_adapt(
            network,
            tasks.support_images[t],
            tasks.support_labels[t],
            steps,
            step_size,
            precision=precision,
            second_order=True,
        )
        with autocast(precision):
            loss = F.cross_entropy(film_forward(network, film, tasks.query_images[t]), tasks.query_labels[t])
        (loss / tasks.tasks).backward()


def check_agreement(tolerance: float = 1e-9) -> float:
    """The largest difference between metafilm's meta-gradient and the plain loop's in float64, relative to
    the largest entry.

    Raises:
        RuntimeError: it is above ``tolerance``; then no figure would mean anything.
    """
    setting = Setting(size=20, channels=2, ways=3, shots=2, queries=4, steps=2, tasks=3, width=6)
    tasks = episode(setting, dtype=torch.float64)
    loop = ours.outer_loop(setting, "float32")
    learner = loop.learner.double()
    network = build(setting).double()
    pairs = [
        (own, parameter)
        for name, own in learner.named_parameters()
        if (parameter := dict(network.named_parameters()).get(plain_name(name))) is not None
    ]
    if len(pairs) != len(list(network.parameters())):
        raise RuntimeError("the plain network's parameters don't match metafilm's: rename them in plain_name")
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for own, parameter in pairs:
            own.add_(0.1 * torch.randn(own.shape, generator=generator, dtype=own.dtype))
            parameter.copy_(own)
    outer_gradient(network, tasks, setting.steps, ours.STEP_SIZE)
    loop.step(ours.cut(tasks, 2))  # chunks of 2 and 1
    scale = max(float(parameter.grad.abs().max()) for _, parameter in pairs)
    worst = max(float((own.grad - parameter.grad).abs().max()) for own, parameter in pairs) / scale
    if not worst < tolerance:
        raise RuntimeError(
            f"metafilm's meta-gradient and the plain per-task loop's differ by {worst:.1e} in float64, more "
            f"than {tolerance:.0e}: nothing is timed before they agree"
        )
    return worst


def plain_name(name: str) -> str:
    """metafilm's parameter name -> the plain network's, where it has that parameter."""
    return name.removeprefix("backbone.").replace("head.linear.", "head.")
