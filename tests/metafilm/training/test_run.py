"""A training run: best weights, divergence, the gap, interruption."""

import signal
import warnings
from dataclasses import replace

import pytest
import torch

from metafilm.config.sources import Source
from metafilm.engine import distributed
from metafilm.errors import MetafilmError, NotFinite
from metafilm.learner.build import load_learner
from metafilm.storage.run import RunDirectory
from metafilm.training import outer_gradient, validation
from metafilm.training import run as training
from metafilm.training.chunks import Chunks
from metafilm.training.outer_gradient import Diverged
from metafilm.training.outer_loop import OuterLoop
from metafilm.training.run import train
from metafilm.training.tracking import Tracker

NOWHERE = Source(None, ())  # type: ignore[arg-type]


def run(config, folder):
    with RunDirectory.open(folder, config) as directory:
        results = train(config, directory, Tracker(directory, config), progress=False)
        return results, directory


def test_a_mixture_is_judged_by_the_mean_over_its_domains(
    in_memory, tiny_config, tmp_path, monkeypatch
) -> None:
    """However many of the validation's tasks are of the easy domain."""
    scores = iter([(90.0, 20.0), (60.0, 60.0), (80.0, 30.0)])

    def found(learner, sampler, episodes, *, by_stage=True, per_stage=None, **_):
        if per_stage is not None:
            per_stage += [[0.0, 10.0], [0.0, 11.0]]
        easy, hard = next(scores) if by_stage else (50.0, 40.0)
        domains = {
            name: {"accuracy_by_step": [value - 5, value], "ci95_by_step": [1.0, 1.0]}
            for name, value in (("easy", easy), ("hard", hard))
        }
        mean = 0.9 * easy + 0.1 * hard
        return {
            "accuracy_by_step": [mean, mean],
            "ci95": 1.0,
            "ci95_by_step": [1.0, 1.0],
            "stages": ["identity", "encoder"],
            "by_domain": domains,
        }

    monkeypatch.setattr(validation, "evaluate", found)
    results, directory = run(tiny_config(outer={"iterations": 6}), tmp_path / "run")
    assert (results["best_validation"], results["best_iteration"]) == (60.0, 4)
    record = directory.read_metrics()[1]
    assert record["validation_accuracy"] == 55.0
    assert record["validation_accuracy_by_domain"] == {"easy": 90.0, "hard": 20.0}
    assert record["validation_accuracy_by_step_by_domain"] == {"easy": [85.0, 90.0], "hard": [15.0, 20.0]}
    assert record["validation_ci95_by_domain"] == {"easy": 1.0, "hard": 1.0}
    assert record["validation_ci95"] == pytest.approx(0.5**0.5), "of the mean of two that are independent"
    assert record["training_classes_accuracy"] == 45.0 and record["gap"] == -10.0


def test_training_learns_and_keeps_the_best(in_memory, tiny_config, tmp_path) -> None:
    config = tiny_config(
        outer={"iterations": 30, "warmup": 2, "learning_rate": 0.02}, evaluation={"every": 10, "episodes": 20}
    )
    results, directory = run(config, tmp_path / "run")
    records = directory.read_metrics()
    assert [record["iteration"] for record in records] == [1, 10, 20, 30]
    scores = {r["iteration"]: r["validation_accuracy"] for r in records if "validation_accuracy" in r}
    assert results["best_validation"] == max(scores.values()) > 80
    assert results["best_iteration"] == min(i for i, score in scores.items() if score == max(scores.values()))
    assert results == directory.read_results() and results["iterations"] == 30
    assert records[-1]["loss"] < records[0]["loss"]
    assert records[-1]["gap"] == records[-1]["training_classes_accuracy"] - records[-1]["validation_accuracy"]
    assert len(records[-1]["sizes"]) == 8
    learner = load_learner(directory.path)
    adapt = results["adapt"]
    assert learner.config == replace(config, evaluation=replace(config.evaluation, adapt=adapt))
    assert not learner.training


@pytest.mark.parametrize(
    ("rows", "asked", "adapt"),
    [
        ([[50.0, 60.0, 61.0], [40.0, 60.0, 62.0], [45.0, 60.0, 61.5]], "auto", "always"),
        ([[50.0, 60.0, 61.0], [40.0, 60.0, 59.0], [45.0, 60.0, 60.0]], "auto", "encoder"),
        ([[50.0, 60.0, 51.0], [60.0, 40.0, 59.0], [45.0, 60.0, 45.0]], "auto", "never"),
        ([[50.0, 60.0, 51.0], [40.0, 51.0, 39.0], [45.0, 54.0, 46.0]], "auto", "encoder"),
        ([[50.0, 60.0, 51.0], [60.0, 40.0, 59.0], [45.0, 60.0, 45.0]], "always", "always"),
    ],
)
def test_the_learner_adapts_as_far_as_validation_finds_better(
    in_memory, tiny_config, tmp_path, monkeypatch, rows, asked, adapt
) -> None:
    means = [sum(column) / 3 for column in zip(*rows, strict=True)]
    asked_for = []

    def found(learner, sampler, episodes, *, by_stage=True, per_stage=None, **_):
        if per_stage is None:
            asked_for.append(learner.stage)
            return {"accuracy_by_step": [55.0], "ci95_by_step": [1.0], "ci95": 1.0}
        per_stage += rows
        return {
            "accuracy_by_step": means,
            "ci95_by_step": [1.0, 2.0, 3.0],
            "stages": ["identity", "encoder", "step 1"],
        }

    monkeypatch.setattr(validation, "evaluate", found)
    config = tiny_config(outer={"iterations": 2}, evaluation={"adapt": asked})
    results, directory = run(config, tmp_path / "run")
    stage = {"never": "identity", "encoder": "encoder"}.get(adapt)
    at = ["identity", "encoder", None].index(stage)
    record = directory.read_metrics()[-1]
    assert results["adapt"] == adapt and results["best_validation"] == means[at]
    assert record["validation_stage"] == (stage or "step 1") and record["validation_ci95"] == 1.0 + at
    assert asked_for == [stage]  # training classes are judged by the same
    learner = load_learner(directory.path)
    assert learner.stage == stage and learner.config.evaluation.adapt == adapt


def test_nan_names_the_iteration_and_the_last_good_checkpoint(
    in_memory, tiny_config, tmp_path, monkeypatch
) -> None:
    config = tiny_config(outer={"iterations": 9}, evaluation={"checkpoint_every_seconds": 0.0})
    original = outer_gradient._query_loss
    calls = []

    def poisoned(*args):
        calls.append(1)
        loss, report = original(*args)
        return (loss * float("nan") if len(calls) == 9 else loss), report  # two chunks an iteration

    monkeypatch.setattr(outer_gradient, "_query_loss", poisoned)
    file = tmp_path / "run" / "checkpoint.pt"
    with pytest.raises(
        Diverged, match=r"nan at iteration 5; the last good checkpoint is .*\(iteration 4\)"
    ) as caught:
        run(config, tmp_path / "run")
    assert str(file) in str(caught.value) and "--outer.learning-rate" in str(caught.value)
    state = torch.load(file, weights_only=True)
    assert state["iteration"] == 4
    assert all(v.isfinite().all() for v in state["learner"].values() if v.is_floating_point())
    calls[:] = [1] * 8
    with pytest.raises(Diverged, match="at iteration 1; there is no checkpoint yet"):
        run(config, tmp_path / "other")


def test_a_wide_gap_is_warned_of(in_memory, tiny_config, tmp_path, monkeypatch) -> None:
    scores = iter([50.0, 80.0] * 4)
    monkeypatch.setattr(
        validation,
        "evaluate",
        lambda *args, **kwargs: {
            "accuracy_by_step": [next(scores)],
            "ci95": 1.0,
            "ci95_by_step": [1.0],
            "stages": ["identity"],
        },
    )
    with pytest.warns(UserWarning, match=r"training classes score 80\.0 %, validation classes 50\.0 %"):
        run(tiny_config(), tmp_path / "run")
    scores = iter([50.0, 60.0] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tiny_config(), tmp_path / "other")


def test_chunks_are_chosen_once(in_memory, tiny_config, tmp_path, monkeypatch) -> None:
    """By time, so that another choice may differ; a run killed before its first checkpoint keeps its own."""
    choices = iter([Chunks(2, 2), Chunks(1, 1)])
    monkeypatch.setattr(training.chunks, "measure", lambda *_: next(choices))
    config = tiny_config(outer={"task_chunk": None})

    def killed(self, episodes):
        assert self.chunks == Chunks(2, 2)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(OuterLoop, "step", killed)
        run(config, tmp_path / "run")
    results, directory = run(config, tmp_path / "run")
    assert directory.load_checkpoint()["chunks"] == [2, 2]
    assert (results["task_chunk"], results["query_chunk"]) == (2, 2)
    assert next(choices) == Chunks(1, 1), "not asked again"


def test_where_to_train(monkeypatch, tiny_config) -> None:
    config = replace(tiny_config(), device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: "gloo")
    assert training.device_of(config, distributed.Group()) == torch.device("cuda")
    with pytest.raises(MetafilmError, match="--device cuda with 2 processes on 1 GPUs"):
        training.device_of(config, distributed.Group(0, 2))
    assert training.device_of(replace(config, device="auto"), distributed.Group(0, 2)).type == "cpu"


def test_a_validation_that_is_no_number_is_divergence(in_memory, tiny_config, tmp_path, monkeypatch) -> None:
    def broken(*_, **__):
        raise NotFinite("the predictions are not finite")

    monkeypatch.setattr(validation, "evaluate", broken)
    message = "validation at iteration 2: the predictions are not finite; there is no checkpoint yet"
    with pytest.raises(Diverged, match=message):
        run(tiny_config(), tmp_path / "run")


def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(
    in_memory, tiny_config, tmp_path
) -> None:
    config = tiny_config(evaluation={"checkpoint_every_seconds": 0.0})
    _, directory = run(config, tmp_path / "run")
    expected = directory.load_checkpoint()["learner"]
    content = bytearray(directory.checkpoint_file.read_bytes())
    content[len(content) // 2] ^= 1
    directory.checkpoint_file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"its checksum does not fit.*going on from .*\(iteration 3\)"):
        results, _ = run(config, tmp_path / "run")
    assert results["iterations"] == 4
    found = directory.load_checkpoint()["learner"]
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert [record["iteration"] for record in directory.read_metrics()] == [1, 2, 4]


def test_a_run_begun_anew_leaves_no_outcome_of_the_one_before(
    in_memory, tiny_config, tmp_path, monkeypatch
) -> None:
    config = tiny_config()
    _, directory = run(config, tmp_path / "run")
    run(config, tmp_path / "run")
    assert directory.model_file.is_file() and directory.read_results() is not None, "resumed, it keeps them"
    for file in (directory.checkpoint_file, directory.previous_file):
        file.unlink(missing_ok=True)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(OuterLoop, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run")
    assert not directory.model_file.exists() and directory.read_results() is None


def test_a_validation_is_told_though_ctrl_c_came_within_it(
    in_memory, tiny_config, tmp_path, monkeypatch
) -> None:
    config, told = tiny_config(), []

    def going_on(record) -> bool:
        told.append(record["iteration"])
        return False

    def trained() -> None:
        with RunDirectory.open(tmp_path / "run", config) as directory:
            tracker = Tracker(directory, config)
            train(config, directory, tracker, progress=False, validated=going_on)

    plain = training.validate

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return plain(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "validate", interrupted)
        trained()
    assert told == [2]
    trained()
    assert told == [2, 4]
