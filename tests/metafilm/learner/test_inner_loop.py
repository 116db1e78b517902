"""The inner loop's steps and step sizes; its gradients are in invariants/test_meta_gradient.py."""

import math

import pytest
import torch

from metafilm import InnerLoop, MetafilmError

SITES = {"a": 2, "b": 3}


def quadratic(targets):
    """A loss per task, [T], with the gradient 2 (δ - target)."""
    return lambda now: sum((value - targets[name]).square().sum(-1) for name, value in now.items())


def problem(tasks: int = 2):
    inner = InnerLoop(SITES, 2, 0.1)
    generator = torch.Generator().manual_seed(0)
    sizes = dict(zip(inner.names, (2, 2, 3, 3), strict=True))
    targets = {name: torch.randn(tasks, size, generator=generator) for name, size in sizes.items()}
    return {name: torch.zeros(tasks, size) for name, size in sizes.items()}, targets


@pytest.mark.parametrize("granularity", ["site", "feature"])
@pytest.mark.parametrize("per_step", [True, False])
def test_steps_and_their_sizes(granularity, per_step) -> None:
    inner = InnerLoop(SITES, 2, 0.1, granularity=granularity, per_step=per_step)
    with torch.no_grad():
        for i, size in enumerate(inner.step_sizes):
            assert size.shape == (2 if per_step else 1, (2, 2, 3, 3)[i] if granularity == "feature" else 1)
            size.copy_(0.02 * (i + 1) * torch.arange(1, size.numel() + 1).view(size.shape))
    start, targets = problem()
    found = list(inner(start, quadratic(targets), 4))
    assert len(found) == 4
    now = start
    for step in range(4):  # the last step's sizes go on
        row = min(step, 1) if per_step else 0
        now = {
            name: now[name] - inner.step_sizes[i][row] * 2 * (now[name] - targets[name])
            for i, name in enumerate(inner.names)
        }
        for name, value in now.items():
            torch.testing.assert_close(found[step][name], value)


def test_no_steps() -> None:
    start, targets = problem()
    assert list(InnerLoop(SITES, 0)(start, quadratic(targets), 0)) == []


def test_without_a_meta_gradient_no_graph_is_kept() -> None:
    start, targets = problem()
    with torch.no_grad():
        kept = list(InnerLoop(SITES, 2)(start, quadratic(targets), 2, meta_gradient=False))
    plain = list(InnerLoop(SITES, 2)(problem()[0], quadratic(targets), 2))
    for first, second in zip(kept, plain, strict=True):
        for name, value in first.items():
            assert not value.requires_grad and second[name].requires_grad
            torch.testing.assert_close(value, second[name].detach())


def test_step_sizes_that_are_not_learned() -> None:
    assert all(size.requires_grad for size in InnerLoop(SITES, 2).step_sizes)
    assert not any(size.requires_grad for size in InnerLoop(SITES, 2, learn=False).step_sizes)


def test_errors() -> None:
    with pytest.raises(MetafilmError, match="needs at least one FiLM site"):
        InnerLoop({}, 1)
    with pytest.raises(MetafilmError, match="unknown step size granularity 'layer'"):
        InnerLoop(SITES, 1, granularity="layer")
    with pytest.raises(MetafilmError, match="unknown inner optimiser 'rmsprop'; expected sgd or adam"):
        InnerLoop(SITES, 1, optimiser="rmsprop")
    for size in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(MetafilmError, match=f"a step size of {size}; give a positive number"):
            InnerLoop(SITES, 1, size)
    with pytest.raises(MetafilmError, match=r"proximal -1.* must be at least 0"):
        InnerLoop(SITES, 1, proximal=-1.0)


def test_adam_is_pytorchs(steps: int = 6) -> None:
    """Task by task: one task's gradients have no say in another's steps."""
    start, targets = problem()
    inner = InnerLoop(SITES, 1, 0.03, optimiser="adam")
    found = list(inner(start, quadratic(targets), steps))
    for task in range(2):
        own = {name: value[task].detach().clone().requires_grad_() for name, value in start.items()}
        optimiser = torch.optim.Adam(own.values(), lr=0.03)
        for step in range(steps):
            optimiser.zero_grad()
            sum((value - targets[name][task]).square().sum() for name, value in own.items()).backward()
            optimiser.step()
            for name, value in own.items():
                torch.testing.assert_close(found[step][name][task], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("proximal", [0.0, 0.7])
def test_meta_gradients_through_the_steps(optimiser, proximal) -> None:
    """Of start and step sizes, against finite differences, features without a gradient included."""
    inner = InnerLoop({"a": 2}, 2, 0.05, optimiser=optimiser, proximal=proximal).double()
    target = torch.tensor([[0.7, -0.4]], dtype=torch.float64)

    def loss(now):  # δβ has no gradient at all
        return (now["a.film.delta_gamma"] - target).pow(4).sum(-1) + 0 * now["a.film.delta_beta"].sum(-1)

    def end(start, sizes):
        parameters = dict(zip(inner.step_sizes, sizes, strict=True))
        step_size = lambda step: [parameters[size][step] for size in inner.step_sizes]  # noqa: E731
        inner.step_size = step_size
        zero = torch.zeros(1, 2, dtype=torch.float64)
        now = {"a.film.delta_gamma": start, "a.film.delta_beta": zero}
        *_, last = inner(now, loss, 2)
        return torch.cat([value.flatten() for value in last.values()])

    start = torch.tensor([[0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    sizes = [size.detach().clone().requires_grad_() for size in inner.step_sizes]
    assert torch.autograd.gradcheck(lambda start, *sizes: end(start, sizes), (start, *sizes))


def test_the_proximal_term_pulls_towards_the_start() -> None:
    start, targets = problem()
    start = {name: value + 1 for name, value in start.items()}
    *_, free = InnerLoop(SITES, 1, 0.1)(start, quadratic(targets), 60)
    *_, held = InnerLoop(SITES, 1, 0.1, proximal=2.0)(start, quadratic(targets), 60)
    for name, value in held.items():
        torch.testing.assert_close(free[name], targets[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(value, (targets[name] + start[name]) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("modulation", "moving"), [("gain", "gamma"), ("shift", "beta"), ("raw", "delta")])
def test_a_modulation_says_what_moves(modulation, moving) -> None:
    start, targets = problem()
    whole = InnerLoop(SITES, 2, 0.1)
    found = list(InnerLoop(SITES, 2, 0.1, modulation=modulation)(start, quadratic(targets), 2))[-1]
    expected = list(whole(problem()[0], quadratic(targets), 2))[-1]
    assert list(found) == whole.names
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name] if moving in name else start[name])


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("meta_gradient", [True, False])
def test_a_site_that_the_loss_does_not_come_by_stays_where_it_is(optimiser, meta_gradient) -> None:
    inner = InnerLoop(SITES, 2, 0.1, optimiser=optimiser, proximal=0.3)
    start, targets = problem()

    def at_a(now):
        return quadratic(targets)({name: value for name, value in now.items() if name.startswith("a.")})

    *_, last = inner(start, at_a, 2, meta_gradient=meta_gradient)
    alone = {name: value for name, value in start.items() if name.startswith("a.")}
    *_, expected = InnerLoop({"a": 2}, 2, 0.1, optimiser=optimiser, proximal=0.3)(
        alone, at_a, 2, meta_gradient=meta_gradient
    )
    for name, value in last.items():
        assert torch.equal(value, expected[name] if name in expected else start[name])


def test_the_start_stays_the_caller_s_own() -> None:
    start, targets = problem()
    list(InnerLoop(SITES, 2)(start, quadratic(targets), 1))
    assert not any(value.requires_grad for value in start.values())
