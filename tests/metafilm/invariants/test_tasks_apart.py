"""Tasks of a batch don't see each other: together they give what each gives alone, gradients too."""

import copy
from dataclasses import replace

import pytest
import torch

from metafilm import MetafilmError, norms
from metafilm.config.sources import Source
from metafilm.film import FilmDict
from metafilm.training.noise import FilmNoise
from metafilm.training.outer_gradient import accumulate
from metafilm.training.outer_loop import OuterLoop

SECTIONS = {
    "prototype": {"inner": {"steps": 2, "views": 2}},
    "prototype-no-views": {"inner": {"steps": 2, "views": 0}},
    "cosine": {"head": {"name": "cosine"}, "inner": {"steps": 1}},
    "linear": {"head": {"name": "linear"}, "inner": {"steps": 2}},
    "ridge": {"head": {"name": "ridge"}, "inner": {"steps": 1}},
    "first-order": {"inner": {"steps": 2, "first_order": True}},
    "encoder-only": {"encoder": {"decoder": "mlp", "spread": True}},
    "resnet12-feature": {
        "backbone": {"name": "resnet12", "width": 2},
        "inner": {"steps": 1, "granularity": "feature"},
    },
}
# all in training mode; in evaluation two norms take another path, the heads don't
CASES = [(name, norm, True) for name in SECTIONS for norm in norms.MODES]
CASES += [("prototype", norm, False) for norm in norms.MODES] + [("ridge", "support", False)]
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def with_norm(sections: dict, norm: str) -> dict:
    return {**sections, "backbone": {**sections.get("backbone", {}), "norm": norm}}


def stacked(films: list[FilmDict]) -> FilmDict:
    return {name: torch.cat([film[name] for film in films]) for name in films[0]}


@pytest.mark.parametrize(("name", "norm", "training"), CASES)
def test_predictions(make_learner, make_episode, name, norm, training) -> None:
    learner = make_learner(**with_norm(SECTIONS[name], norm)).train(training)
    episode = make_episode(tasks=3)
    together = learner(episode, all_stages=True)
    alone = [learner(episode.select(t), all_stages=True) for t in range(3)]
    assert len(together.stages) >= 2
    for stage in range(len(together.stages)):
        torch.testing.assert_close(
            together.predictions[stage], torch.cat([one.predictions[stage] for one in alone]), **EXACT
        )
        if stage:
            expected = stacked([one.films[stage] for one in alone])
            for key, value in together.films[stage].items():
                torch.testing.assert_close(value, expected[key], **EXACT)


def gradients(learner, episode) -> dict[str, torch.Tensor]:
    learner.zero_grad()
    accumulate(learner, episode, learner.config)
    return {
        name: value.grad.clone()
        for name, value in learner.outer_parameters().items()
        if value.grad is not None
    }


@pytest.mark.parametrize(("name", "norm", "training"), CASES)
def test_meta_gradient_is_the_mean_of_the_tasks_own(make_learner, make_episode, name, norm, training) -> None:
    sections = {**with_norm(SECTIONS[name], norm), "outer": {"penalty": 0.1, "auxiliary": 0.5}}
    learner = make_learner(train_classes=7, **sections).train(training)
    episode = make_episode(tasks=3)
    found = gradients(learner, episode)
    alone = [gradients(learner, episode.select(t)) for t in range(3)]
    assert found.keys() == alone[0].keys()
    assert any(key.startswith("backbone") for key in found)
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, torch.stack([one[key] for one in alone]).mean(0), **EXACT)


@pytest.mark.parametrize("norm", norms.MODES)
def test_a_meta_batch_may_be_cut_into_any_chunks(make_learner, make_episode, norm) -> None:
    """Parameters, running averages and the moving average after three steps don't depend on the cut."""
    learner = make_learner(
        train_classes=7,
        backbone={"norm": norm},
        inner={"steps": 2},
        outer={"iterations": 9, "auxiliary": 0.5, "average": 0.9, "meta_batch": 4, "task_chunk": 4},
    )
    states, reports = [], []
    for sizes in ((4,), (1, 1, 1, 1)):
        loop = OuterLoop(copy.deepcopy(learner), learner.config, Source(None, ()))  # type: ignore[arg-type]
        for step in range(3):
            tasks = [make_episode(tasks=4, seed=step).select(t) for t in range(4)]
            chunks, start = [], 0
            for size in sizes:
                chunks.append(type(tasks[0]).cat(tasks[start : start + size]))
                start += size
            report = loop.step(chunks)
        states.append(
            {**loop.learner.state_dict(), **{f"average {k}": v for k, v in loop.average.values.items()}}
        )
        reports.append(report)
    moved = {name for name, value in learner.state_dict().items() if not torch.equal(value, states[0][name])}
    assert any("running_mean" in name for name in moved) == (norm == "running")
    for state, report in zip(states[1:], reports[1:], strict=True):
        for name, value in states[0].items():
            torch.testing.assert_close(
                state[name], value, **EXACT, msg=lambda text, name=name: f"{name}: {text}"
            )
        assert report["loss"] == pytest.approx(reports[0]["loss"], abs=1e-9)
        assert report["gradient_norm"] == pytest.approx(reports[0]["gradient_norm"], abs=1e-9)
        assert report["accuracy"] == pytest.approx(reports[0]["accuracy"])


@pytest.fixture
def uneven(make_learner, make_episode):
    """A learner that steps on three images of each class, and tasks of (4, 2), (3, 3) and (2, 4) images."""
    learner = make_learner(
        backbone={"norm": "support"}, inner={"steps": 2, "views": 2, "batch": 3, "step_size": 0.3}
    )
    episode = make_episode(tasks=3, ways=2, shots=3)
    labels = [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]]
    return learner, replace(episode, support_labels=torch.tensor(labels))


def test_steps_on_parts_of_tasks_of_other_class_counts(uneven) -> None:
    learner, episode = uneven
    together = learner(episode, all_stages=True)
    alone = [learner(episode.select(t), all_stages=True) for t in range(3)]
    for stage, prediction in enumerate(together.predictions):
        torch.testing.assert_close(prediction, torch.cat([one.predictions[stage] for one in alone]), **EXACT)
    for step, losses in enumerate(together.inner_losses):
        torch.testing.assert_close(losses, torch.cat([one.inner_losses[step] for one in alone]), **EXACT)
    found = gradients(learner, episode)
    own = [gradients(learner, episode.select(t)) for t in range(3)]
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, torch.stack([one[key] for one in own]).mean(0), **EXACT)


def test_noise_is_of_tasks_that_step_together(uneven) -> None:
    learner, episode = uneven
    with (
        FilmNoise(0.1, 0).under(learner, episode),
        pytest.raises(MetafilmError, match=r"leave outer\.film_noise or inner\.batch out"),
    ):
        learner(episode)
