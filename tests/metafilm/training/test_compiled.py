"""The compiled outer gradient against the eager one in float64, second order included."""

import shutil

import pytest
import torch

from metafilm.config.sources import Source
from metafilm.errors import ConfigError, MetafilmError
from metafilm.training.compiled import CompiledGradient
from metafilm.training.outer_gradient import accumulate
from metafilm.training.outer_loop import OuterLoop

CASES = {  # second order where nothing else is said; the graphs of more steps are traced for longer
    "encoder, 1 step": {"inner": {"steps": 1}},
    "2 steps, linear": {
        "encoder": {"enabled": False},
        "head": {"name": "linear"},
        "inner": {"steps": 2, "views": 0},
    },
    "first order": {"inner": {"steps": 2, "first_order": True}},
    "detached encoder": {"encoder": {"detach": True}},
    "constant": {"encoder": {"kind": "constant"}, "inner": {"steps": 1, "first_order": True}},
    "group": {"backbone": {"norm": "group"}, "inner": {"steps": 1}},
    "resnet12": {"backbone": {"name": "resnet12"}, "inner": {"steps": 1, "first_order": True}},
}


def gradients(learner, run) -> dict[str, torch.Tensor]:
    learner.zero_grad()
    run()
    return {n: p.grad.clone() for n, p in learner.outer_parameters().items() if p.grad is not None}


def compare(learner, episode, backend: str) -> None:
    config = learner.config
    reports = []
    expected = gradients(learner, lambda: reports.append(accumulate(learner, episode, config, share=0.5)))
    compiled = CompiledGradient(learner, config, backend)
    found = gradients(learner, lambda: reports.append(compiled(episode, share=0.5)))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)
    assert not any(value.any() for name, value in found.items() if name not in expected)
    plain, fused = ({k: v for k, v in report.items() if k != "sizes"} for report in reports)
    assert fused == pytest.approx(plain, rel=1e-9)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_traced_gradients_are_the_eager_ones(make_learner, make_episode, case) -> None:
    """Tracing and differentiating as the compiler does it, in one graph, without its code generation."""
    sections = CASES[case]
    learner = make_learner(train_classes=7, outer={"penalty": 0.3, "auxiliary": 0.2}, **sections).train()
    compare(learner, make_episode(tasks=2), "aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")
def test_generated_code_has_the_eager_gradients(make_learner, make_episode) -> None:
    learner = make_learner(
        encoder={"enabled": False}, head={"name": "linear"}, inner={"steps": 1, "views": 0}
    ).train()
    compare(learner, make_episode(tasks=1), "inductor")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_running_averages_move_as_in_eager_steps(make_learner, make_episode, monkeypatch) -> None:
    import copy

    learner = make_learner(outer={"task_chunk": 1})
    other = copy.deepcopy(learner)
    episode = make_episode(tasks=2)
    OuterLoop(learner, learner.config, Source(None, ())).step([episode])  # type: ignore[arg-type]
    loop = OuterLoop(other, learner.config, Source(None, ()))  # type: ignore[arg-type]
    loop.compiled = CompiledGradient(other, learner.config, "aot_eager")
    loop.step([episode])
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.filterwarnings("ignore")
def test_what_can_not_compile_says_so(make_learner, make_episode) -> None:
    learner = make_learner().train()

    def backend(*_):
        raise RuntimeError("no compiler here")

    compiled = CompiledGradient(learner, learner.config, backend)  # type: ignore[arg-type]
    with pytest.raises(MetafilmError, match=r"--outer\.compile did not work here .*needs a C\+\+ compiler"):
        compiled(make_episode(tasks=1))


def test_ranges_would_compile_for_ever(tiny_config) -> None:
    with pytest.raises(ConfigError, match=r"episodes.ways must be one number with --outer\.compile"):
        tiny_config(episodes={"ways": [2, 4]}, outer={"compile": True})
