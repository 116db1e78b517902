"""What the learner makes of its gate: whom it asks, what that costs, what is kept and said of it."""

import dataclasses

import pytest
import torch

from metafilm import CheckpointError, Gate, MetaFiLM, MetafilmError, Task, evaluate, film
from metafilm.cli.text.table import stage_in_words
from metafilm.config.config import Config
from metafilm.errors import ConfigError
from metafilm.learner import load_learner
from metafilm.learner.gate import Report
from metafilm.storage import tensorfile

SHY = Gate(steps=(1, 2), margin=1e9)


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
            gc.collect()
            gc.freeze()  # what was there before is not looked through at each step
            try:
                ends = []
                for count in (6, 30):
                    alive.clear()
                    learner.adaptation(episode, steps=count, gate=gate, all_stages=False)
                    ends.append(max(alive))
            finally:
                gc.unfreeze()
            assert 0 < ends[1] <= ends[0] + 8 * 30, (gate, ends)


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


def test_functions_have_no_gate(of_functions) -> None:
    learner = of_functions
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
