"""The meta-gradient against finite differences, a loop written out by hand, and learn2learn's MAML."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metafilm import film, norms
from metafilm.backbones import Conv4
from metafilm.film import FilmDict
from metafilm.learner.inner_loop import InnerLoop
from metafilm.training.outer_gradient import penalty


def outer(learner, episode) -> Tensor:
    outcome = learner(episode)
    loss = learner.head.loss(outcome.predictions[-1], episode.query_labels).mean()
    return loss + 0.1 * penalty(outcome.films[-1])


CASES = [*((norm, "prototype", True) for norm in norms.MODES), ("running", "prototype", False)]
CASES += [("support", head, True) for head in ("cosine", "ridge", "linear")]


@pytest.mark.parametrize(("norm", "head", "training"), CASES)
def test_finite_differences_through_encoder_and_two_steps(
    make_learner, make_episode, norm, head, training
) -> None:
    """A random projection of the whole gradient: backbone, encoder, head and step sizes."""
    learner = make_learner(
        backbone={"norm": norm, "width": 3}, head={"name": head}, inner={"steps": 2, "views": 1}
    ).train(training)
    episode = make_episode(tasks=2, queries=1)
    parameters = learner.outer_parameters()
    assert {name.split(".")[0] for name in parameters} == {"backbone", "encoder", "head", "inner"}

    def function(vector: Tensor) -> Tensor:
        parts = vector.split([value.numel() for value in parameters.values()])
        values = {n: part.view_as(value) for (n, value), part in zip(parameters.items(), parts, strict=True)}
        return functional_call(learner, values, (episode,)).predictions[-1]

    start = nn.utils.parameters_to_vector(parameters.values()).detach().requires_grad_()
    assert torch.autograd.gradcheck(function, start, fast_mode=True, eps=1e-6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["encoder.", "head.", "inner.", "backbone.blocks.0.conv"])
def test_each_kind_of_parameter_on_its_own(make_learner, make_episode, kind) -> None:
    """Along one random direction per parameter, so that no large one hides a small one."""
    learner = make_learner(inner={"steps": 2}).train()
    episode = make_episode(tasks=2)
    chosen = {name: value for name, value in learner.outer_parameters().items() if name.startswith(kind)}
    assert chosen
    gradients = torch.autograd.grad(outer(learner, episode), list(chosen.values()))
    for (name, value), gradient in zip(chosen.items(), gradients, strict=True):
        direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)).to(value)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                value.add_(direction, alpha=sign * 1e-6)
            ends.append(outer(learner, episode).detach())
            with torch.no_grad():
                value.add_(direction, alpha=-sign * 1e-6)
        slope = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-7, msg=name)
        assert gradient.abs().max() > 0, name


class Curves:
    """One task, a backbone with FiLM and a fixed linear classifier: what the references below adapt."""

    def __init__(self, disturb) -> None:
        torch.manual_seed(3)
        self.backbone = film.insert(Conv4((1, 16, 16), 4, "group")).double()
        disturb(self.backbone)
        self.classifier = nn.Linear(4, 3).double()
        generator = torch.Generator().manual_seed(4)
        self.support, self.query = torch.rand(2, 6, 1, 16, 16, generator=generator).double()
        self.labels = torch.arange(3).repeat_interleave(2)
        self.start = {name: value.detach().clone() for name, value in film.parameters(self.backbone).items()}

    def loss(self, deviations: FilmDict, images: Tensor) -> Tensor:
        return F.cross_entropy(self.classifier(film.call(self.backbone, deviations, images)), self.labels)

    @property
    def shared(self) -> list[Tensor]:
        own = film.parameters(self.backbone)
        return [v for n, v in self.backbone.named_parameters() if n not in own] + list(
            self.classifier.parameters()
        )

    def by_hand(self, steps: int, step_size: float, first_order: bool) -> tuple[FilmDict, Tensor]:
        now = {name: value.clone().requires_grad_() for name, value in self.start.items()}
        for _ in range(steps):
            gradients = torch.autograd.grad(
                self.loss(now, self.support), list(now.values()), create_graph=True
            )
            moved = {}
            for (name, value), gradient in zip(now.items(), gradients, strict=True):
                moved[name] = value - step_size * (gradient.detach() if first_order else gradient)
            now = moved
        return now, self.loss(now, self.query)

    def by_inner_loop(self, steps: int, step_size: float, first_order: bool) -> tuple[FilmDict, Tensor]:
        inner = InnerLoop(film.sites(self.backbone), steps, step_size).double()
        start = {name: value[None].clone() for name, value in self.start.items()}
        *_, last = inner(
            start, lambda now: self.loss(now, self.support)[None], steps, first_order=first_order
        )
        return {name: value[0] for name, value in last.items()}, self.loss(last, self.query)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_loop_written_out_by_hand(disturb, steps: int, first_order: bool) -> None:
    task = Curves(disturb)
    (expected, expected_loss), (found, loss) = (
        run(steps, 0.5, first_order) for run in (task.by_hand, task.by_inner_loop)
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
        assert not torch.equal(value, task.start[name])
    reference = torch.autograd.grad(expected_loss, task.shared)
    for gradient, other in zip(torch.autograd.grad(loss, task.shared), reference, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)


def test_first_and_second_order_differ(disturb) -> None:
    task = Curves(disturb)
    first, second = (
        torch.autograd.grad(task.by_inner_loop(2, 0.5, order)[1], task.shared)[0] for order in (True, False)
    )
    assert (first - second).abs().max() > 1e-3 * second.abs().max()


class OnlyDeviations(nn.Module):
    """A module whose only parameters are the deviations, as learn2learn must see it; the rest is shared."""

    def __init__(self, task: Curves) -> None:
        super().__init__()
        self.names = list(task.start)
        for i, value in enumerate(task.start.values()):
            self.register_parameter(f"deviation{i}", nn.Parameter(value.clone()))
        self.task_loss = task.loss

    def forward(self, images: Tensor) -> Tensor:
        return self.task_loss(
            {name: getattr(self, f"deviation{i}") for i, name in enumerate(self.names)}, images
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_learn2learn_on_the_same_deviations(disturb, steps: int, first_order: bool) -> None:
    learn2learn = pytest.importorskip("learn2learn", exc_type=ImportError)
    task = Curves(disturb)
    clone = learn2learn.algorithms.MAML(OnlyDeviations(task), lr=0.5, first_order=first_order).clone()
    for _ in range(steps):
        clone.adapt(clone(task.support))
    expected_loss = clone(task.query)
    found, loss = task.by_inner_loop(steps, 0.5, first_order)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=1e-12)
    for i, name in enumerate(task.start):
        torch.testing.assert_close(
            found[name], getattr(clone.module, f"deviation{i}"), rtol=1e-10, atol=1e-12
        )
    reference = torch.autograd.grad(expected_loss, task.shared)
    for gradient, other in zip(torch.autograd.grad(loss, task.shared), reference, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)
