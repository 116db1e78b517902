"""The inner loop's steps and step sizes; its gradients are in invariants/test_meta_gradient.py."""

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
