"""The networks and the ways to adapt them that scripts/adaptation.py compares."""

import argparse
import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from episodes import Episode
from metafilm import MetaFiLM, film
from metafilm.heads import CosineHead
from metafilm.learner.inner_loop import InnerLoop
from scripts import device

# The trainings that networks and arms come from: the option that names a run directory -> its command.
RUNS = {
    # half of the configuration's pictures: it is held against itself
    "conv4": "metafilm train configs/miniimagenet.yaml --backbone.last-relu True --pretrain.iterations 15000 "
    "--outer.iterations 3500 --evaluation.every 875 --run-dir runs/miniimagenet-short",
    "encoder": "metafilm train configs/domains.yaml --outer.iterations 1500 --threads 1 "
    "--run-dir runs/domains/encoder",
    # one δ for all tasks moves by its step size alone, and needs a larger one than a network that makes it
    "constant": "metafilm train configs/domains.yaml --outer.iterations 1500 --threads 1 "
    "--encoder.kind constant --outer.rates.encoder 10 --run-dir runs/domains/constant",
}


def run_of(name: str, arguments: argparse.Namespace) -> Path:
    """The run directory that the command line names. Raises SystemExit where it names none."""
    found: Path | None = getattr(arguments, name)
    if found is None:
        raise SystemExit(f"this row needs a trained network: --{name} RUN, of the training\n  {RUNS[name]}")
    return found


@dataclass(frozen=True)
class Network:
    """A network to adapt: how to get it, how far its steps go (chosen on validation tasks), and which data
    sets it may be asked about.

    ``step_size``: of Adam on the deviations; ``tuning_rate``: of Adam on all weights; ``run``: which of the
    ``RUNS`` it comes from, if from one.
    """

    make: Callable[[argparse.Namespace], MetaFiLM]
    datasets: tuple[str, ...]
    steps: int = 20
    step_size: float = 1.5e-3
    tuning_rate: float = 1e-4
    meta_trained: bool = False  # whether a task encoder was trained for it
    run: str | None = None


def lite0(arguments: argparse.Namespace) -> MetaFiLM:
    return MetaFiLM.from_backbone("timm:tf_efficientnet_lite0", (3, 64, 64), weights="lite0")


def conv4(arguments: argparse.Namespace) -> MetaFiLM:
    """The Conv-4 that was trained on miniImageNet alone, given an inner loop of Adam steps."""
    plain = MetaFiLM.from_pretrained(run_of("conv4", arguments))
    network = NETWORKS["conv4-miniimagenet"]
    inner = InnerLoop(film.sites(plain.backbone), 1, network.step_size, learn=False, optimiser="adam")
    return MetaFiLM(
        plain.backbone,
        CosineHead(10.0),
        inner=inner,
        image_shape=plain.image_shape,
        mean=plain.mean.flatten().tolist(),
        std=plain.std.flatten().tolist(),
        evaluation_steps=network.steps,
        view_augment="affine",
    ).eval()


# ImageNet holds miniImageNet's test classes, so that Lite0 is not asked about them.
ABROAD = ("omniglot-within", "omniglot-across", "strokes-unseen-styles", "digits")
NETWORKS = {
    "lite0": Network(lite0, ABROAD, meta_trained=True),
    "conv4-miniimagenet": Network(conv4, (*ABROAD, "miniimagenet"), step_size=5e-3, run="conv4"),
}


def trained_by(network: Network, arm: str) -> str | None:
    """Which of the ``RUNS`` an arm of a network comes from; None: from none."""
    return {"constant": "constant", "encoder": "encoder", "encoder+steps": "encoder"}.get(arm, network.run)


class Arms:
    """Ways from a support set to predictions of the queries, all of one network.

    Every arm: one task -> logits ``[1, Q, ways]``.
    """

    def __init__(self, network: Network, arguments: argparse.Namespace) -> None:
        self.network = network
        self.learner = device.placed(network.make(arguments))
        self._arguments = arguments
        self._trained: dict[str, MetaFiLM] = {}

    @property
    def table(self) -> dict[str, Callable[[Episode], Tensor]]:
        arms: dict[str, Callable[[Episode], Tensor]] = {
            "identity": lambda task: self.under(self.learner, task, {}),
            "statistics": self.statistics,
            "logistic-regression": self.logistic_regression,
            "steps": lambda task: self.adapted(self.learner, task, "step"),
            "gate": lambda task: self.adapted(self.learner, task, "gate"),
            "fine-tuning": self.fine_tuning,
        }
        if self.network.meta_trained:
            arms |= {
                "constant": lambda task: self.adapted(self.trained("constant"), task, "encoder"),
                "encoder": lambda task: self.adapted(self.trained("encoder"), task, "encoder"),
                "encoder+steps": lambda task: self.adapted(self.trained("encoder"), task, "step"),
            }
        return arms

    def trained(self, kind: str) -> MetaFiLM:
        if kind not in self._trained:
            learner = device.placed(MetaFiLM.from_pretrained(run_of(kind, self._arguments)))
            learner.inner, learner.views = self.learner.inner, self.learner.views
            learner.view_augment = self.learner.view_augment
            self._trained[kind] = learner
        return self._trained[kind]

    def weights(self, arm: str) -> str:
        """Which weights an arm's answers come from, 16 hexadecimal digits: of a run its file's SHA-256, of a
        network that none of ours trained its fingerprint."""
        run = trained_by(self.network, arm)
        if run is None:
            return self.learner.fingerprint()
        file = run_of(run, self._arguments) / "model.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]

    def under(self, learner: MetaFiLM, task: Episode, deviations: film.FilmDict) -> Tensor:
        return next(learner.predictions(task, [deviations]))[0]

    def adapted(self, learner: MetaFiLM, task: Episode, stage: str) -> Tensor:
        """Under the deviations of the last stage of that name."""
        steps = 0 if stage == "encoder" else self.network.steps
        found = learner.adaptation(task, steps=steps, gate=stage == "gate", all_stages=False)
        films = [
            films for name, films in zip(found.stages, found.films, strict=True) if name.startswith(stage)
        ]
        return self.under(learner, task, films[-1])

    def features(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(self.learner.prepare(images)).unsqueeze(0)

    def classified(self, network: nn.Module, task: Episode) -> Tensor:
        """By the prototypes of a plain network of this task's own."""
        head = self.learner.head
        state = head.fit(self.features(network, task.support_images), task.support_labels, task.ways)
        return head.predict(state, self.features(network, task.query_images))

    def own_network(self) -> nn.Module:
        return film.remove(copy.deepcopy(self.learner.backbone))

    def statistics(self, task: Episode) -> Tensor:
        """Norms that take mean and variance from the support set instead of from their training: what can be
        had without labels and gradients (the domain's first two moments)."""
        network = self.own_network()
        norms = [
            module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        self.features(network, task.support_images)
        return self.classified(network.eval(), task)

    def logistic_regression(self, task: Episode) -> Tensor:
        """scikit-learn's, on frozen features of length 1 (Tian et al., ECCV 2020, arXiv:2003.11539)."""
        from sklearn.linear_model import LogisticRegression

        support, query = (
            nn.functional.normalize(self.features(self.learner.backbone, images)[0], dim=-1).cpu().numpy()
            for images in (task.support_images, task.query_images)
        )
        fitted = LogisticRegression(C=1.0, max_iter=1000).fit(support, task.support_labels[0].cpu().numpy())
        return torch.from_numpy(fitted.decision_function(query)).unsqueeze(0).to(task.query_labels.device)

    def fine_tuning(self, task: Episode) -> Tensor:
        """All weights by Adam, as many steps on the same loss as the deviations get."""
        network = self.own_network().requires_grad_(True)
        optimiser = torch.optim.Adam(network.parameters(), self.network.tuning_rate)
        views = self.learner.views_of(task)
        with torch.enable_grad():
            for _ in range(self.network.steps):
                optimiser.zero_grad()
                features = self.features(network, task.support_images)
                held_out = None if views is None else self.features(network, views)
                loss = self.learner.head.inner_loss(features, task.support_labels, task.ways, held_out)
                loss.sum().backward()
                optimiser.step()
        return self.classified(network, task)
