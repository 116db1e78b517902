"""The gate's choice: what it may choose from, what is held out, how it decides."""

import dataclasses
import re

import pytest
import torch

from episodes import Episode
from metafilm import Gate, MetaFiLM, MetafilmError
from metafilm.learner.gate import leave_one_out
from metafilm.learner.gate.folds import folds, with_unused_views
from metafilm.learner.gate.gate import leads, paired

EAGER, SHY = Gate(steps=(1, 2), margin=0.0), Gate(steps=(1, 2), margin=1e9)


def shuffled_rows(episode: Episode, seed: int = 3) -> Episode:
    """Each task's support in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    size = episode.support_labels.shape[1]
    order = torch.stack([torch.randperm(size, generator=generator) for _ in range(episode.tasks)])
    tasks = torch.arange(episode.tasks).unsqueeze(1)
    return dataclasses.replace(
        episode,
        support_images=episode.support_images[tasks, order],
        support_labels=episode.support_labels[tasks, order],
    )


def test_candidates_in_the_order_of_their_change() -> None:
    names = [move.name for move in Gate(steps=(1, 2, 5, 10)).moves(10, encoder=True)]
    assert names == ["identity", "encoder", "step 1", "step 2", "step 5", "step 10"]
    assert [move.name for move in Gate(steps=(3, 8)).moves(7, encoder=False)] == [
        "identity",
        "step 3",
        "step 7",
    ]
    assert [move.name for move in Gate().moves(0, encoder=True)] == ["identity", "encoder"]
    several = Gate(steps=(1, 4), factors=(1.0, 3.0)).moves(9, encoder=False)
    assert [(move.name, move.factor, move.steps) for move in several] == [
        ("identity", 0.0, 0),
        ("step 1", 1.0, 1),
        ("step 1 x 3", 3.0, 1),
        ("step 4", 1.0, 4),
        ("step 9", 1.0, 9),
        ("step 3 x 3", 3.0, 3),
    ]


def test_only_what_is_clearly_better_is_taken() -> None:
    base = torch.tensor([-1.0, -2.0, -1.5, -0.5])
    better = base + torch.tensor([0.3, 0.1, 0.2, 0.4])  # gain 0.25, standard error 0.0645: 3.9 of them
    gain, error = paired(better - base)
    assert gain == pytest.approx(0.25) and error == pytest.approx(0.0645497, rel=1e-4)
    scores = torch.stack((base, better))
    assert Gate(margin=3.8).decide(scores) == 1
    assert Gate(margin=3.9).decide(scores) == 0
    # a tie moves nothing further, a gain does, and noise must gain more than its own error
    assert Gate(margin=0).decide(torch.stack((base, base))) == 0
    assert Gate(margin=1).decide(torch.stack((base, better, better))) == 1
    assert Gate(margin=1).decide(torch.stack((base, base - 1, better))) == 2
    noisy = better + torch.tensor([1.0, -0.9, 0.8, -0.8])
    assert Gate(margin=1).decide(torch.stack((base, better, noisy))) == 1
    assert Gate(margin=0).decide(torch.stack((base, better, noisy))) == 2
    assert Gate(margin=0).decide(torch.stack((base, better, better - 0.01))) == 1
    # one image has no standard error, and what is not finite no gain
    assert Gate(margin=0).decide(torch.tensor([[-1.0], [-0.5]])) == 0
    assert Gate(margin=0).decide(torch.stack((base, better * torch.nan))) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": (0, 1)}, "steps (0, 1) must be at least 1"),
        ({"factors": ()}, "factors () must be one or more"),
        ({"factors": (-1.0,)}, "positive"),
        ({"margin": -1.0}, "margin -1.0 must be at least 0"),
        ({"views": 0}, "views 0 at least 1"),
    ],
)
def test_settings_that_are_none(settings, message) -> None:
    with pytest.raises(MetafilmError, match=re.escape(message)):
        Gate(**settings)


@pytest.mark.parametrize("shots", [2, 3, 5])
def test_every_image_is_held_out_once(make_episode, shots) -> None:
    """Images are numbered by their pixels, so that they can be told apart wherever they went."""
    episode = shuffled_rows(make_episode(tasks=2, ways=3, shots=shots))
    size = 3 * shots
    numbers = torch.arange(2 * size).view(2, size, 1, 1, 1).expand(-1, -1, 1, 16, 16) / 100
    views = numbers.unsqueeze(1) + 0.5
    episode = dataclasses.replace(episode, support_images=numbers, support_views=views)
    label = {float(n) / 100: int(y) for n, y in enumerate(episode.support_labels.flatten())}
    held_out = [[], []]
    for fold in folds(episode):
        assert abs(fold.support_labels.shape[1] - size / 2) <= 1
        for task in range(2):
            own, other = fold.support_images[task, :, 0, 0, 0], fold.query_images[task, :, 0, 0, 0]
            mine = [n / 100 for n in range(task * size, (task + 1) * size)]
            assert sorted([*own.tolist(), *other.tolist()]) == pytest.approx(mine)
            assert set(fold.support_labels[task].tolist()) == {0, 1, 2}
            for images, labels in ((own, fold.support_labels), (other, fold.query_labels)):
                keys = [min(label, key=lambda n, v=v: abs(n - v)) for v in images.tolist()]
                assert [label[key] for key in keys] == labels[task].tolist()
            torch.testing.assert_close(fold.support_views[task, 0, :, 0, 0, 0], own + 0.5)
            held_out[task] += other.tolist()
    assert all(len(set(found)) == size for found in held_out)


def test_a_class_of_one_image_helps_and_is_not_scored(make_episode) -> None:
    episode = make_episode(tasks=1, ways=3, shots=2)
    keep = torch.tensor([0, 1, 2, 4, 5])  # class 1 has one image
    episode = dataclasses.replace(
        episode,
        support_images=episode.support_images[:, keep],
        support_labels=episode.support_labels[:, keep],
    )
    for fold in folds(episode):
        assert fold.support_labels.tolist() == [[0, 1, 2]]
        assert fold.query_labels.tolist() == [[0, 2]]


def test_leads_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    spread = ((1 + 1 + 0 + 1 + 1 + 4) / 6) ** 0.5
    expected = torch.tensor([1.0, -1.0], dtype=torch.float64) / spread
    torch.testing.assert_close(leads(logits, labels), expected)
    # the scale of the logits is no news, nor is what all classes share
    torch.testing.assert_close(leads(7 * logits + 5, labels), expected)
    assert not leads(torch.ones(2, 3), labels).any()
    # each candidate by its own spread
    both = leads(torch.stack((logits, 7 * logits)), labels.expand(2, -1))
    torch.testing.assert_close(both, expected.expand(2, -1))


def by_hand(learner: MetaFiLM, episode: Episode, steps: int) -> torch.Tensor:
    """Held-out leads of one task ``[candidates, n]``, from the learner without a gate."""
    names = ["identity", "encoder", "step 1", "step 2", f"step {steps}"]
    parts = [(fold, learner(fold, steps=steps, all_stages=True, gate=False)) for fold in folds(episode)]
    labels = torch.cat([fold.query_labels[0] for fold, _ in parts])
    rows = []
    for name in names:
        logits = [seen.predictions[seen.stages.index(name)][0] for _, seen in parts]
        rows.append(leads(torch.cat(logits), labels))
    return torch.stack(rows)


@pytest.mark.parametrize("gate", [EAGER, Gate(steps=(1, 2), margin=1.0)])
def test_the_choice_by_hand(gated, make_episode, gate) -> None:
    learner = gated(gate)
    episode = shuffled_rows(make_episode(tasks=3, ways=3, shots=4))
    with torch.no_grad():
        found = learner.adaptation(episode)
        assert found.stages == ["identity", "encoder", *(f"step {k}" for k in range(1, 5)), "gate"]
        for task, report in enumerate(found.reports):
            scores = by_hand(learner, episode.select(task), 4)
            names = [one.name for one in report.candidates]
            assert names == ["identity", "encoder", "step 1", "step 2", "step 4"]
            assert report.chosen == names[gate.decide(scores)]
            assert (report.evidence, report.images) == ("folds", 12)
            for number, one in enumerate(report.candidates):
                gain, error = paired(scores[number] - scores[0])
                assert (one.gain, one.error) == pytest.approx((gain, error), abs=1e-9)
            if report.chosen == "identity":
                expected = {name: torch.zeros_like(v[task]) for name, v in found.films[-1].items()}
            else:
                films = found.films[found.stages.index(report.chosen)]
                expected = {name: value[task] for name, value in films.items()}
            for name, value in expected.items():
                torch.testing.assert_close(found.films[-1][name][task], value)


def test_tasks_choose_for_themselves_together_and_alone(gated, make_episode) -> None:
    gate = Gate(steps=(1, 2), factors=(1.0, 2.0), margin=0.0)
    learner = gated(gate, step_size=0.02, encoder={"enabled": False})
    episode = make_episode(tasks=10, ways=3, shots=3)
    with torch.no_grad():
        together = learner.adaptation(episode, all_stages=False)
        chosen = {report.chosen for report in together.reports}
        # none, and several numbers of steps of either size
        assert {"identity", "step 1", "step 4", "step 1 x 2", "step 2 x 2"} <= chosen
        every = learner.adaptation(episode)
        for task in range(10):
            alone = learner.adaptation(episode.select(task), all_stages=False)
            assert alone.reports[0].chosen == together.reports[task].chosen == every.reports[task].chosen
            for name, value in alone.films[-1].items():
                torch.testing.assert_close(together.films[-1][name][task], value[0])
                torch.testing.assert_close(every.films[-1][name][task], value[0])


def test_tasks_of_other_class_counts(gated, make_episode) -> None:
    """One by one, as they can't be split alike."""
    learner = gated()
    episode = make_episode(tasks=2, ways=2, shots=3)
    labels = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    episode = dataclasses.replace(episode, support_labels=labels)
    with pytest.raises(ValueError, match="class counts"):
        folds(episode)
    with torch.no_grad():
        together = learner.adaptation(episode)
        for task in range(2):
            alone = learner.adaptation(episode.select(task))
            assert alone.reports[0].chosen == together.reports[task].chosen
            for name, value in alone.films[-1].items():
                torch.testing.assert_close(together.films[-1][name][task], value[0])


def test_one_image_a_class_is_judged_by_copies_that_no_step_has_seen(gated, make_episode) -> None:
    learner = gated(Gate(steps=(1, 2), margin=0.0, views=3))
    episode = make_episode(tasks=2, ways=3, shots=1)
    with torch.no_grad():
        found = learner.adaptation(episode)
        few = learner.adaptation(episode, all_stages=False)
    assert [report.evidence for report in found.reports] == ["views"] * 2
    assert found.reports[0].images == 3
    for name, value in few.films[-1].items():
        torch.testing.assert_close(found.films[-1][name], value)
    seen = with_unused_views(episode, episode.support_images, 1, learner.view_augment)
    assert not torch.equal(seen.query_images, learner.views_of(episode))
    # copies that were changed by nothing carry no news: their scores are those of the images themselves
    learner.view_augment = "none"
    with torch.no_grad():
        plain = learner.adaptation(episode)
        own = dataclasses.replace(
            episode, query_images=episode.support_images, query_labels=episode.support_labels
        )
        last = learner(own, gate=False).predictions[-1]
        first = next(learner.predictions(own, [{}]))[0]
    gains = (leads(last, own.query_labels) - leads(first, own.query_labels)).mean(1)
    assert [r.candidates[-1].gain for r in plain.reports] == pytest.approx(gains.tolist())
    # ... and all right before the first step, so that none is taken, whatever it would gain
    start = plain.reports[0].candidates[1]
    assert start.name == "encoder" and start.accuracy == 100
    assert {r.chosen for r in plain.reports} <= {"identity", "encoder"} and gains.max() > 0
    assert [r.candidates[-1].gain for r in found.reports] != pytest.approx(gains.tolist(), rel=1e-3)


def test_steps_that_harm_are_not_taken(gated, make_episode) -> None:
    """Huge steps ruin the features. Two encodings and the trials, and then no step of the whole support."""
    learner = gated(Gate(steps=(1, 2), margin=1.0), step_size=1.0, encoder={"enabled": False})
    episode = make_episode(tasks=1, ways=3, shots=6)
    taken: list[int] = []
    steps = learner.trajectory

    def watched(part, *arguments, **options):
        taken.append(part.support_labels.shape[1])
        return steps(part, *arguments, **options)

    learner.trajectory = watched
    task = learner.adapt(episode.support_images[0].float(), episode.support_labels[0])
    assert task.report.chosen == "identity" and taken == [9, 9]
    assert all(not value.any() for value in task.film.values())
    assert "nothing gains more than one standard error over" in task.report.why
    assert any(
        value.any()
        for value in learner.adapt(
            episode.support_images[0].float(), episode.support_labels[0], gate=False
        ).film.values()
    )


def test_steps_that_pay_are_taken(gated, make_episode) -> None:
    learner = gated(Gate(margin=0.5), steps=10, step_size=0.05, encoder={"enabled": False})
    episode = make_episode(tasks=1, ways=3, shots=6, seed=1)
    images, labels = episode.support_images[0], episode.support_labels[0]
    task = learner.adapt(images, labels)
    assert task.report.chosen.startswith("step")
    taken = next(one for one in task.report.candidates if one.name == task.report.chosen)
    assert taken.gain > 0.5 * taken.error
    assert f"{taken.name} gains most" in task.report.why
    count = int(taken.name.split()[1])
    for name, value in learner.adapt(images, labels, steps=count, gate=False).film.items():
        torch.testing.assert_close(task.film[name], value)


@pytest.mark.parametrize(
    ("gate", "norm"), [(True, "running"), (False, "running"), (False, "support"), (False, "transductive")]
)
def test_leave_one_out_by_hand(gated, make_episode, gate, norm) -> None:
    """Every image by a head and norms without it, under deviations of the half without it."""
    learner = gated(Gate(steps=(1, 2), margin=0.0), steps=2, step_size=0.05, norm=norm)
    episode = shuffled_rows(make_episode(tasks=1, ways=3, shots=3, seed=17))
    found = leave_one_out(learner, episode, gate=gate)
    labels = episode.support_labels[0]
    right = {"before": 0, "after": 0}
    with torch.no_grad():
        for fold in folds(episode):
            adapted = learner.adaptation(fold, gate=gate, all_stages=False).films[-1]
            for image, label in zip(fold.query_images[0], fold.query_labels[0], strict=True):
                others = [n for n, one in enumerate(episode.support_images[0]) if not torch.equal(one, image)]
                assert len(others) == 8
                alone = dataclasses.replace(
                    episode,
                    support_images=episode.support_images[:, others],
                    support_labels=labels[others].unsqueeze(0),
                    query_images=image[None, None],
                    query_labels=label[None, None],
                )
                for name, deviations in (("before", {}), ("after", adapted)):
                    prediction = next(learner.predictions(alone, [deviations]))[0]
                    right[name] += int(prediction.argmax() == label)
    assert found.images == 9
    assert (found.before, found.after) == pytest.approx((100 * right["before"] / 9, 100 * right["after"] / 9))


def test_single_images_leave_none_out(gated, make_episode) -> None:
    assert leave_one_out(gated(), make_episode(tasks=1, ways=3, shots=1)) is None
