"""adapt-lite0-96: a frozen EfficientNet-Lite0 on one task, beside a plain loop that fine-tunes its norms.

python -m scripts.benchmarks.adaptation SYSTEM PRECISION THREADS     # one task in this process; prints bytes
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from metafilm import MetaFiLM
from metafilm.backbones.pretrained import lite0_state
from metafilm.heads import CosineHead
from metafilm.learner.batches import augmented_views

from .memory import ROOT, resident
from .records import OURS, Record, Run, build
from .rounds import Samples, System, choose_all, interleave, say

NETWORK = "tf_efficientnet_lite0"
NORMS = "plain-norms"
PRECISIONS = ("float32", "bfloat16")
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


@dataclass(frozen=True)
class Adapting:
    """One task: ways × shots support images of this size, one held-out view of each, Adam steps."""

    size: int = 96
    ways: int = 5
    shots: int = 5
    steps: int = 20
    step_size: float = 1.5e-3

    def support(self) -> tuple[Tensor, Tensor]:
        """Images ``[S, 3, size, size]`` in [0, 1], smooth as pictures are, and labels ``[S]``."""
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(self.ways * self.shots, 3, 6, 6, generator=generator)
        images = nn.functional.interpolate(coarse, (self.size, self.size), mode="bilinear")
        return images, torch.arange(self.ways).repeat_interleave(self.shots)

    def note(self) -> str:
        return (
            f"{NETWORK} at {self.size}x{self.size}, ImageNet weights, frozen, BN in eval; {self.ways}-way "
            f"{self.shots}-shot, 1 view, {self.steps} Adam steps, cosine prototypes"
        )


LITE0_96 = Adapting()


def ours(setting: Adapting, precision: str) -> Callable[[], Tensor]:
    """metafilm's ``adapt``: views, steps on δ, and the prototypes at the end. Gives the first loss."""
    learner = MetaFiLM.from_backbone(
        f"timm:{NETWORK}",
        (3, setting.size, setting.size),
        weights="lite0",
        steps=setting.steps,
        step_size=setting.step_size,
        gate=False,  # the same steps, all of them
    )
    learner.autocast = precision == "bfloat16"
    images, labels = setting.support()
    first: list[Tensor] = []
    inner_loss = learner.head.inner_loss

    def noting(*arguments) -> Tensor:
        value = inner_loss(*arguments)
        first.append(value.detach())
        return value

    learner.head.inner_loss = noting

    def run() -> Tensor:
        first.clear()
        learner.adapt(images, labels)
        return first[0]

    return run


def plain_norms(setting: Adapting, precision: str, layout: str = "channels last") -> Callable[[], Tensor]:
    """Plain PyTorch: timm's network with gradients for its norms' weights and biases alone, the same steps on
    the same loss of the same images, made beforehand. Gives the first loss."""
    import timm

    network = timm.create_model(NETWORK)
    network.load_state_dict(lite0_state(network.state_dict()))
    network.reset_classifier(0)
    network.eval().requires_grad_(False).to(memory_format=LAYOUTS[layout])
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    parameters = [parameter for norm in norms for parameter in (norm.weight, norm.bias)]
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_()
    images, labels = setting.support()
    views = augmented_views(images[None], 1, "affine", torch.zeros(1, dtype=torch.long))[0]
    mean = torch.tensor(network.pretrained_cfg["mean"]).view(-1, 1, 1)
    std = torch.tensor(network.pretrained_cfg["std"]).view(-1, 1, 1)
    x = ((torch.cat((images, views)) - mean) / std).contiguous(memory_format=LAYOUTS[layout])
    head, rows = CosineHead(10.0), len(images)

    def run() -> Tensor:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        optimiser = torch.optim.Adam(parameters, lr=setting.step_size)
        losses = []
        for _ in range(setting.steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                features = network(x)
            features = features.float().unsqueeze(0)
            loss = head.inner_loss(features[:, :rows], labels[None], setting.ways, features[:, rows:]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return losses[0]

    return run


def systems(setting: Adapting, precision: str) -> list[System]:
    """metafilm and the plain loop, the latter in both memory layouts."""
    ways = tuple(
        System(NORMS, plain_norms(setting, precision, layout), 1, precision, layout) for layout in LAYOUTS
    )
    return [
        System(OURS, ours(setting, precision), 1, precision),
        System(NORMS, ways[-1].run, 1, precision, variants=ways),
    ]


def check_agreement(setting: Adapting) -> float:
    """How far the two first losses are apart in float32.

    Raises:
        RuntimeError: so far that the two don't do the same work; nothing is timed then.
    """
    mine, theirs = (float(make(setting, "float32")().sum()) for make in (ours, plain_norms))
    if not abs(mine - theirs) < 1e-3 * abs(theirs):
        raise RuntimeError(f"the first losses are {mine} and {theirs}: not the same work; nothing is timed")
    return abs(mine - theirs)


def adaptation(
    run: Run,
    rounds: int | None = None,
    *,
    setting: Adapting = LITE0_96,
    precisions: Sequence[str] = PRECISIONS,
) -> list[Record]:
    """Seconds per task, every round each system and precision in turn."""
    say(f"adapt-lite0-96: the first losses agree to {check_agreement(setting):.1e}")
    chosen, _ = choose_all([system for kind in precisions for system in systems(setting, kind)])
    samples = interleave(chosen, rounds or 3, 0)  # choosing has warmed them up
    return build(run, "adapt-lite0-96", chosen, samples, setting.note())


def memory(run: Run, rounds: int | None = None) -> list[Record]:
    """Bytes above the idle process (imports, model, images) of one task; a fresh process per round."""
    samples: Samples = {(name, kind): [] for kind in PRECISIONS for name in (OURS, NORMS)}
    for number in range(rounds or 2):
        say(f"adapt-lite0-96-memory: round {number + 1}")
        for (name, kind), values in samples.items():
            command = [sys.executable, "-m", "scripts.benchmarks.adaptation", name, kind, str(run.threads)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            values.append(int(done.stdout.split()[-1]))
    found = [System(name, _nothing, 1, kind) for name, kind in samples]
    note = (
        f"bytes above the idle process; {LITE0_96.note()}; plain-norms channels last, allocator as it comes"
    )
    return build(run, "adapt-lite0-96-memory", found, samples, note)


def _nothing() -> None:
    """These systems run in processes of their own."""


def main(name: str, precision: str, threads: int) -> None:
    torch.set_num_threads(threads)
    # the peak is the first step's; the second has the optimiser's state too
    step = (ours if name == OURS else plain_norms)(replace(LITE0_96, steps=2), precision)
    idle = resident("VmRSS")
    step()
    print(resident("VmHWM") - idle)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
