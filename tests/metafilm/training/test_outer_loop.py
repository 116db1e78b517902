"""The outer loop's loss, step, divergence and validation; resuming is tested among the invariants."""

import copy

import pytest
import torch
from torch.nn import functional as F

from metafilm.config.sources import Source
from metafilm.errors import RunError
from metafilm.training import optimiser
from metafilm.training.outer_gradient import Diverged, accumulate, penalty, sizes
from metafilm.training.outer_loop import OuterLoop

NOWHERE = Source(None, ())  # type: ignore[arg-type]


def test_penalty_and_sizes() -> None:
    films = {"a": torch.tensor([[1.0, 2.0], [0.0, 0.0]]), "b": torch.tensor([[3.0], [1.0]])}
    assert penalty(films) == pytest.approx((1 + 4 + 9 + 1) / 6)
    assert penalty({}) == 0.0
    of_gains = {"a.film.delta_gamma": torch.tensor([[-1.0, 0.0]]), "a.film.delta_beta": torch.ones(1, 2)}
    assert penalty(of_gains) == pytest.approx(3 / 4) and penalty(of_gains, raw=True) == pytest.approx(3 / 4)
    of_gains["a.film.delta_gamma"] -= 1
    assert penalty(of_gains, raw=True) == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert sizes(films) == pytest.approx({"a": (5 / 4) ** 0.5, "b": 5**0.5})


CASES = {
    "encoder": {},
    "detached encoder": {"encoder": {"detach": True}},
    "encoder, 2 steps": {"inner": {"steps": 2}},
    "2 steps": {"encoder": {"enabled": False}, "inner": {"steps": 2}},
    "first order": {"inner": {"steps": 2, "first_order": True}},
    "linear, 2 steps": {
        "encoder": {"enabled": False},
        "head": {"name": "linear"},
        "inner": {"steps": 2, "views": 0},
    },
    "spread, 1 step": {"encoder": {"spread": True}, "inner": {"steps": 1}},
    "constant": {"encoder": {"kind": "constant"}},
    "constant, 2 steps": {"encoder": {"kind": "constant"}, "inner": {"steps": 2}},
    "neither": {"encoder": {"enabled": False}},
    "no sites": {"encoder": {"enabled": False}, "film": {"sites": "none"}},
    "last site": {"inner": {"steps": 2}, "film": {"sites": "last"}},
}


@pytest.mark.parametrize("query_chunk", [None, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_accumulate_is_the_gradient_of_the_whole_loss(
    make_learner, make_episode, outer_loss, case, query_chunk
) -> None:
    """The chain rule cut at the deviations, against one graph of everything."""
    learner = make_learner(train_classes=7, outer={"penalty": 0.3, "auxiliary": 0.2}, **CASES[case]).train()
    episode = make_episode(tasks=3)
    loss = outer_loss(learner, episode)
    expected = torch.autograd.grad(loss, list(learner.outer_parameters().values()), allow_unused=True)
    learner.zero_grad()
    report = accumulate(learner, episode, learner.config, share=0.5, query_chunk=query_chunk)
    for (name, parameter), gradient in zip(learner.outer_parameters().items(), expected, strict=True):
        if gradient is None:
            assert parameter.grad is None or not parameter.grad.any(), name
        else:
            torch.testing.assert_close(parameter.grad, 0.5 * gradient, rtol=1e-9, atol=1e-12, msg=name)
    outcome = learner(episode)
    query = F.cross_entropy(outcome.predictions[-1].flatten(0, 1), episode.query_labels.flatten())
    hits = (outcome.predictions[-1].argmax(-1) == episode.query_labels).double().mean()
    assert report["loss"] == pytest.approx(query.item())
    assert report["accuracy"] == pytest.approx(100 * hits.item())
    assert report["penalty"] == pytest.approx(float(torch.as_tensor(penalty(outcome.films[-1])).detach()))
    assert report["sizes"] == pytest.approx(sizes(outcome.films[-1]))
    whole = report["loss"] + 0.3 * report["penalty"] + 0.2 * report["auxiliary"]
    assert whole == pytest.approx(loss.item())


@pytest.mark.parametrize("sections", [{}, {"encoder": {"enabled": False}}, {"inner": {"steps": 2}}])
def test_smoothed_targets(make_learner, make_episode, outer_loss, sections) -> None:
    """Of the queries and the auxiliary classifier, and not of the inner loop."""
    outer = {"penalty": 0.3, "auxiliary": 0.2}
    smooth = make_learner(train_classes=7, outer=outer | {"label_smoothing": 0.3}, **sections).train()
    sharp = make_learner(train_classes=7, outer=outer, **sections).train()
    episode = make_episode(tasks=3)
    loss = outer_loss(smooth, episode)
    assert abs(loss - outer_loss(sharp, episode)) > 1e-3
    expected = torch.autograd.grad(loss, list(smooth.outer_parameters().values()), allow_unused=True)
    accumulate(smooth, episode, smooth.config, query_chunk=2)
    for (name, parameter), gradient in zip(smooth.outer_parameters().items(), expected, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12, msg=name)
    films = [one.adaptation(episode).films[-1] for one in (smooth, sharp)]
    assert all(torch.equal(films[0][name], value) for name, value in films[1].items())


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_steps_of_sgd_with_nesterov_s_momentum(make_learner, make_episode, outer_loss, momentum) -> None:
    """Against the update as Sutskever et al. (ICML 2013) and PyTorch write it, parameter by parameter."""
    outer = {"optimiser": "sgd", "momentum": momentum, "learning_rate": 0.05, "warmup": 0, "clip_norm": 0}
    outer |= {"weight_decay": 0.1, "encoder_weight_decay": 0.2, "final_learning_rate": 1.0, "meta_batch": 3}
    learner = make_learner(backbone={"norm": "support"}, outer=outer)
    reference = copy.deepcopy(learner).train()
    loop = OuterLoop(learner, learner.config, NOWHERE)
    velocities: dict[str, torch.Tensor] = {}
    for number in range(3):
        loop.step([make_episode(seed=number)])
        parameters = reference.outer_parameters()
        reference.zero_grad()
        outer_loss(reference, make_episode(seed=number)).backward()
        for name, value in parameters.items():
            if value.grad is None:
                continue
            decays = value.dim() > 1
            decay = (0.2 if name.startswith("encoder.") else 0.1) if decays else 0.0
            gradient = value.grad + decay * value.detach()
            velocity = momentum * velocities[name] + gradient if name in velocities else gradient
            velocities[name] = velocity
            with torch.no_grad():
                value -= 0.05 * (gradient + momentum * velocity)
        for name, value in parameters.items():
            torch.testing.assert_close(
                learner.outer_parameters()[name], value, rtol=1e-8, atol=1e-10, msg=name
            )


def test_sgd_goes_on_from_its_state(make_learner, make_episode, tmp_path) -> None:
    outer = {"optimiser": "sgd", "learning_rate": 0.05}
    whole, cut = (make_learner(outer=outer) for _ in range(2))
    loops = [OuterLoop(one, one.config, NOWHERE) for one in (whole, cut)]
    for loop in loops:
        for number in range(2):
            loop.step([make_episode(seed=number)])
    again = make_learner(outer=outer)
    resumed = OuterLoop(again, again.config, NOWHERE)
    torch.save(loops[1].state(), tmp_path / "state.pt")
    resumed.load(torch.load(tmp_path / "state.pt", weights_only=True), "state.pt")
    for loop in (loops[0], resumed):
        loop.step([make_episode(seed=2)])
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_step_is_adamw_on_the_clipped_gradient(make_learner, make_episode, outer_loss) -> None:
    learner = make_learner(outer={"clip_norm": 0.01, "learning_rate": 0.1, "warmup": 2})
    reference = copy.deepcopy(learner).train()
    report = OuterLoop(learner, learner.config, NOWHERE).step([make_episode()])
    parameters = list(reference.outer_parameters().values())
    outer_loss(reference, make_episode()).backward()
    norm = torch.stack([p.grad.square().sum() for p in parameters]).sum().sqrt()
    assert report["gradient_norm"] == pytest.approx(norm.item()) and norm > 0.01
    assert report["learning_rate"] == pytest.approx(0.05)
    for parameter in parameters:
        parameter.grad *= 0.01 / (norm + 1e-6)
    adam = optimiser.build(reference, reference.config.outer)
    optimiser.set_rate(adam, 0.5)
    adam.step()
    for name, value in reference.outer_parameters().items():
        torch.testing.assert_close(learner.outer_parameters()[name], value, msg=name)


def test_clipping_can_be_off(make_learner, make_episode) -> None:
    for limit, expected in ((0.0, False), (1e-3, True)):
        learner = make_learner(outer={"clip_norm": limit})
        loop = OuterLoop(learner, learner.config, NOWHERE)
        norm = loop.step([make_episode()])["gradient_norm"]
        kept = torch.stack([p.grad.square().sum() for p in learner.outer_parameters().values()]).sum().sqrt()
        assert (kept < norm * 0.99) == expected


def test_indices_are_consecutive_and_never_repeat(make_learner) -> None:
    learner = make_learner(outer={"meta_batch": 3})
    loop = OuterLoop(learner, learner.config, NOWHERE)
    assert [i for step in range(4) for i in loop.indices(step)] == list(range(12))


def test_the_inner_loop_starts_when_it_is_told(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1, "start": 0.5})
    loop = OuterLoop(learner, learner.config, NOWHERE)  # 4 iterations
    moved = []
    for _ in range(4):
        before = learner.inner.step_sizes[0].clone()
        loop.step([make_episode()])
        moved.append(not torch.equal(before, learner.inner.step_sizes[0]))
    assert moved == [False, False, True, True]


def test_a_head_whose_equations_have_no_solution_has_diverged(make_learner, make_episode) -> None:
    """Not an error of linear algebra, which no command catches."""
    learner = make_learner(head={"name": "logistic"})
    loop = OuterLoop(learner, learner.config, NOWHERE)

    def unsolvable(*arguments, **named):
        raise torch.linalg.LinAlgError(
            "linalg.solve: The solver failed because the input matrix is singular."
        )

    learner.head.fit = unsolvable
    with pytest.raises(Diverged, match=r"the head's equations have no solution .*singular.* at iteration 1"):
        loop.step([make_episode()])


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_diverges_changes_nothing(make_learner, make_episode, where) -> None:
    learner = make_learner(outer={"average": 0.9})
    loop = OuterLoop(learner, learner.config, NOWHERE)
    loop.step([make_episode(seed=1)])
    before, average = copy.deepcopy(learner.state_dict()), copy.deepcopy(loop.average.values)
    bad = make_episode(seed=2)
    if where == "loss":
        bad.query_images[0, 0, 0, 0, 0] = float("nan")
        message = "the outer loss is nan at iteration 2"
    else:
        hook = learner.head.log_scale.register_hook(lambda gradient: gradient * float("inf"))
        message = "the norm of the outer gradient is (inf|nan) at iteration 2"
    with pytest.raises(Diverged, match=message):
        loop.step([make_episode(seed=3), bad])
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert all(torch.equal(value, average[name]) for name, value in loop.average.values.items())
    assert loop.iteration == 1 and not learner.autocast
    if where == "gradient":
        hook.remove()
    # and a good step after it is what it would have been
    loop.step([make_episode(seed=4)])
    other = OuterLoop(make_learner(outer={"average": 0.9}), learner.config, NOWHERE)
    other.step([make_episode(seed=1)])
    other.step([make_episode(seed=4)])
    for name, value in other.learner.state_dict().items():
        assert torch.equal(learner.state_dict()[name], value), name


def test_averaged_weights_are_lent(make_learner, make_episode) -> None:
    learner = make_learner(outer={"average": 0.9})
    loop = OuterLoop(learner, learner.config, NOWHERE)
    loop.step([make_episode()])
    own = copy.deepcopy(learner.state_dict())
    with pytest.raises(KeyError), loop.averaged() as lent:
        assert all(torch.equal(value, loop.average.values[name]) for name, value in lent.state_dict().items())
        assert not torch.equal(lent.head.log_scale, own["head.log_scale"])
        raise KeyError
    assert all(torch.equal(value, own[name]) for name, value in learner.state_dict().items())


def test_bfloat16_trains(make_learner, make_episode) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        learner = make_learner(dtype=torch.float32, inner={"steps": 1}, outer={"precision": precision})
        loop = OuterLoop(learner, learner.config, NOWHERE)
        found[precision] = loop.step([make_episode()])["loss"]
        assert not learner.autocast and all(p.dtype == torch.float32 for p in learner.parameters())
        assert all(p.isfinite().all() for p in learner.parameters())
    assert found["float32"] != found["bfloat16"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.1)


def test_sizes_do_not_depend_on_the_cut_into_chunks(make_learner, make_episode) -> None:
    learner = make_learner(inner={"steps": 1}, outer={"meta_batch": 4})
    tasks = make_episode(tasks=4)
    expected = sizes(learner.train()(tasks).films[-1])
    for cut in ([4], [1, 3], [2, 2], [1, 1, 1, 1]):
        first = [sum(cut[:i]) for i in range(len(cut))]
        parts = [tasks.select(slice(a, a + n)) for a, n in zip(first, cut, strict=True)]
        loop = OuterLoop(copy.deepcopy(learner), learner.config, NOWHERE)
        assert loop.step(parts)["sizes"] == pytest.approx(expected, rel=1e-9), cut


def test_a_checkpoint_of_something_else_is_named(make_learner, make_episode) -> None:
    learner = make_learner(outer={"average": 0.9})
    loop = OuterLoop(learner, learner.config, NOWHERE)
    loop.step([make_episode()])
    for changes, message in (
        ({"average": None}, "the average of the weights is missing"),
        ({"average": {"values": {}, "updates": 1}}, "the average of .* is missing"),
        ({"optimiser": {"state": {}, "param_groups": []}}, "different number of parameter groups"),
    ):
        with pytest.raises(
            RunError, match=f"place/checkpoint.pt does not fit this run .*{message}.*delete it"
        ):
            loop.load(loop.state() | changes, "place/checkpoint.pt")
