"""The gate: what it may choose from, how it decides, what it is shown, and what the learner makes of it."""

import dataclasses
import re

import pytest
import torch

from episodes import Episode
from metafilm import CheckpointError, Gate, MetaFiLM, MetafilmError, Task, evaluate, film
from metafilm.cli.text.table import stage_in_words
from metafilm.config.config import Config
from metafilm.errors import ConfigError
from metafilm.learner import load_learner
from metafilm.learner.gate import Report, leave_one_out
from metafilm.learner.gate.folds import folds, with_unused_views
from metafilm.learner.gate.gate import leads, paired
from metafilm.storage import tensorfile

EAGER, SHY = Gate(steps=(1, 2), margin=0.0), Gate(steps=(1, 2), margin=1e9)


@pytest.fixture
def gated(make_learner):
    """`gated(gate, steps=4, step_size=0.1, **sections)`: a learner in evaluation mode."""

    def make(gate: Gate = EAGER, steps: int = 4, step_size: float = 0.1, **sections) -> MetaFiLM:
        inner = {"steps": 1, "evaluation_steps": steps, "step_size": step_size}
        learner = make_learner(inner=inner, backbone={"norm": "running"}, **sections).eval()
        learner.gate = gate
        return learner

    return make


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


def test_whom_it_asks_and_whom_not(gated, make_episode) -> None:
    learner = gated()
    episode = make_episode(tasks=1, ways=3, shots=2)
    assert learner(episode, all_stages=True).stages[-1] == "gate"
    assert learner(episode).stages == ["gate"]
    assert learner(episode, gate=False).stages == ["step 4"]
    assert learner(episode, steps=0, all_stages=True).stages == ["identity", "encoder", "gate"]
    # nothing to choose from
    assert learner(episode, steps=0, use_encoder=False, all_stages=True).stages == ["identity"]
    assert learner.train()(episode, all_stages=True).stages == ["identity", "encoder", "step 1"]
    learner.eval().gate = None
    assert learner(episode).stages == ["step 4"]
    assert learner(episode, gate=True).stages == ["gate"]


def test_an_evaluation_shows_it_last(gated, sampler) -> None:
    learner = gated().float()
    found = evaluate(learner, sampler, 4, progress=False)
    assert found["stages"] == ["identity", "encoder", *(f"step {k}" for k in range(1, 5)), "gate"]
    with torch.no_grad():
        alone = [learner(episode, gate=True) for episode in map(sampler.batch, ([0], [1], [2], [3]))]
        scores = [
            learner.head.measure(one.predictions[-1], sampler.batch([n]).query_labels)
            for n, one in enumerate(alone)
        ]
    assert found["accuracy"] == pytest.approx(float(torch.cat(scores).mean()))
    assert stage_in_words("gate") == "after the gate"


def test_never_three_times_the_work(gated, make_episode) -> None:
    """Images through the backbone, those with a gradient counted thrice, at worst: all steps are chosen."""
    learner = gated(Gate(steps=(1, 2, 5, 10), margin=0.0), steps=20, step_size=0.01)
    work = 0

    def count(_module, inputs, _output):
        nonlocal work
        work += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)

    for parameter in learner.parameters():
        parameter.requires_grad_(False)
    learner.backbone.register_forward_hook(count)
    for shots in (1, 2, 5, 20):
        episode = make_episode(tasks=1, ways=3, shots=shots)
        plain, whole = [], []
        for gate, found in ((False, plain), (True, whole)):
            work = 0
            with torch.no_grad():
                learner.adaptation(episode, gate=gate, all_stages=False)
            found.append(work)
        assert plain[0] < whole[0] <= 3 * plain[0], (shots, plain, whole)


def test_memory_does_not_grow_with_the_steps(gated, make_episode) -> None:
    """Bytes of the tensors alive at each step, with the gate and without; an inner loss a step are few."""
    import gc

    learner = gated(Gate(steps=(1, 2), margin=0.0))
    episode = make_episode(tasks=1, ways=3, shots=2)
    alive: list[int] = []
    steps = learner.trajectory

    def watched(*arguments, **options):
        for deviations in steps(*arguments, **options):
            alive.append(sum(one.nbytes for one in gc.get_objects() if type(one) is torch.Tensor))
            yield deviations

    learner.trajectory = watched
    with torch.no_grad():
        for gate in (False, True):
            learner.adaptation(episode, steps=3, gate=gate, all_stages=False)  # caches are filled
            ends = []
            for count in (6, 30):
                alive.clear()
                learner.adaptation(episode, steps=count, gate=gate, all_stages=False)
                ends.append(max(alive))
            assert ends[1] <= ends[0] + 8 * 30, (gate, ends)


def test_the_report_prints_and_lies_in_the_task_file(gated, make_episode, tmp_path) -> None:
    learner = gated().float()
    episode = make_episode(tasks=1, ways=3, shots=3)
    task = learner.adapt(episode.support_images[0], episode.support_labels[0])
    text = str(task.report)
    assert text.startswith("9 support images held out (the other half's steps); lead: how far")
    marked = [line for line in text.splitlines() if line.startswith("*")]
    assert len(marked) == 1 and f" {task.report.chosen} " in marked[0]
    assert len(text.splitlines()) == 2 + len(task.report.candidates)
    task.save(tmp_path / "task.safetensors")
    assert Task.load(tmp_path / "task.safetensors", learner).report == task.report
    # as a file from before the gate, and one that somebody changed
    tensors, metadata = tensorfile.read(tmp_path / "task.safetensors")
    del metadata["gate"]
    tensorfile.write(tmp_path / "old.safetensors", tensors, metadata)
    assert Task.load(tmp_path / "old.safetensors", learner).report is None
    tensorfile.write(tmp_path / "bad.safetensors", tensors, metadata | {"gate": '{"chosen": "step 1"}'})
    with pytest.raises(CheckpointError, match="damaged report of the gate"):
        Task.load(tmp_path / "bad.safetensors", learner)
    assert learner.adapt(episode.support_images[0], episode.support_labels[0], gate=False).report is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.report.chosen = "identity"
    assert Report.from_dict(task.report.to_dict()) == task.report


def test_a_learner_keeps_its_gate(make_learner, tmp_path) -> None:
    learner = make_learner(inner={"steps": 1, "gate": True}, dtype=torch.float32)
    assert learner.gate == Gate()
    learner.save(tmp_path / "by-config.safetensors")
    assert load_learner(tmp_path / "by-config.safetensors").gate == Gate()
    assert make_learner(inner={"steps": 1}).gate is None
    learner.config, learner.gate = None, Gate(steps=(3,), factors=(1.0, 2.0), margin=2.0)
    learner.save(tmp_path / "by-parts.safetensors")
    assert load_learner(tmp_path / "by-parts.safetensors").gate == learner.gate
    learner.gate = None
    learner.save(tmp_path / "without.safetensors")
    assert load_learner(tmp_path / "without.safetensors").gate is None


def test_functions_have_no_gate(make_learner) -> None:
    learner = make_learner(
        shape=(1,),
        data={"name": "sinusoids", "image_size": None},
        backbone={"name": "mlp", "hidden": [6, 6]},
        head={"name": "regression"},
        inner={"steps": 1},
    )
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(6, 1)
    with pytest.raises(MetafilmError, match="labels are real values; leave it out"):
        learner.adapt(x, x, gate=True)
    with pytest.raises(MetafilmError, match="labels are real values; leave it out"):
        MetaFiLM(learner.backbone, learner.head, image_shape=(1,), gate=Gate())
    with pytest.raises(ConfigError, match=r"--inner.gate compares classes, and the regression head has none"):
        Config.from_dict(
            {
                "data": {"name": "sinusoids"},
                "head": {"name": "regression"},
                "inner": {"steps": 1, "gate": True},
            }
        )
    with pytest.raises(ConfigError, match=r"--inner.gate has nothing to choose from"):
        Config.from_dict({"encoder": {"enabled": False}, "inner": {"gate": True}})


def test_heads_without_prototypes(gated, make_episode) -> None:
    for name in ("ridge", "linear"):
        learner = gated(head={"name": name})
        found = learner(make_episode(tasks=2, ways=3, shots=2), all_stages=True)
        assert found.stages[-1] == "gate" and found.predictions[-1].shape == (2, 6, 3)


def test_no_adaptation_is_zero_everywhere(gated, make_episode) -> None:
    learner = gated(SHY)
    found = learner.adaptation(make_episode(tasks=2, ways=3, shots=2))
    assert [report.chosen for report in found.reports] == ["identity"] * 2
    zeros = film.zeros(learner.backbone, 2)
    assert found.films[-1].keys() == zeros.keys()
    for name, value in zeros.items():
        assert torch.equal(found.films[-1][name], value) and not found.films[-1][name].requires_grad


@pytest.mark.parametrize("gate", [True, False])
def test_leave_one_out_by_hand(gated, make_episode, gate) -> None:
    """Every image by a head without it, under deviations of the half without it."""
    learner = gated(Gate(steps=(1, 2), margin=0.0), steps=2, step_size=0.05)
    episode = shuffled_rows(make_episode(tasks=1, ways=3, shots=3, seed=5))
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
