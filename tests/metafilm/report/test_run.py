"""The report of a run says what is there, in the figures of the evaluation, and what is missing."""

import json
import re
from dataclasses import replace

import pytest
import torch

import episodes
from episodes import ClassPool, CriterionSampler, EpisodeSampler
from metafilm import film
from metafilm.config.sources import Source
from metafilm.errors import CheckpointError
from metafilm.evaluation import calibration_error, evaluate
from metafilm.report import Asked, Found, find, run_report
from metafilm.report.naming import Names
from metafilm.report.scored import columns_of, score, shown
from metafilm.report.sections import calibrated
from metafilm.storage.calibration import Calibration, Level
from metafilm.storage.environment import environment
from metafilm.storage.run import RunDirectory


@pytest.fixture
def learner(make_learner):
    return make_learner(dtype=torch.float32, inner={"steps": 2}).eval()


@pytest.fixture
def grouped(pool) -> ClassPool:
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    return replace(pool, groups=groups, group_names=("<b>Latin</b>", "Greek"))


@pytest.fixture
def asked(learner, grouped, tiny_config) -> Asked:
    source = Source(EpisodeSampler(grouped, 3, 2, 4, 1), (grouped,))
    return Asked(learner, tiny_config(), source, "val", 12)


def metrics(iterations: int = 6) -> list[dict]:
    names = [f"blocks.{i}.norm.film.delta_{kind}" for i in range(2) for kind in ("gamma", "beta")]
    return [
        {
            "iteration": 10 * i,
            "loss": 1 / (i + 1),
            "accuracy": 50.0 + i,
            "penalty": 0.1,
            "gradient_norm": 1.0,
            "learning_rate": 1e-3,
            "sizes": dict.fromkeys(names, 0.1 * i),
            **({"validation_accuracy": 60.0 + i, "validation_ci95": 2.0} if i % 2 else {}),
            **({"validation_stages": ["identity", "step 1"]} if i % 2 else {}),
            **(
                {"validation_accuracy_by_step": [50.0, 60.0 + i], "training_classes_accuracy": 70.0}
                if i % 2
                else {}
            ),
        }
        for i in range(iterations)
    ]


def test_steps_on_whole_weights_are_no_deviations_of_0(make_learner, asked) -> None:
    asked.learner = make_learner(
        dtype=torch.float32, encoder={"enabled": False}, inner={"steps": 1, "adapts": "all"}
    ).eval()
    text = run_report(Found("weights"), asked)
    assert text.count("move all weights of its network") == 2
    assert "were not adapted" not in text and "nothing to map" not in text and "Size of a task" not in text


@pytest.fixture
def run(tmp_path, tiny_config) -> RunDirectory:
    """A run half done: settings, metrics, nothing else."""
    with RunDirectory.open(tmp_path / "run", tiny_config()) as run:
        for record in metrics():
            run.append_metrics(record)
    return run


def test_scores_are_those_of_the_evaluation(asked):
    scored = score(asked.learner, asked.source, 12, Names(asked.source))
    found, known = scored.scores(), evaluate(asked.learner, asked.source.sampler, 12)
    assert scored.stages == known["stages"]
    for name in ("accuracy_by_step", "ci95_by_step", "gain_by_step", "gain_ci95_by_step"):
        assert found[name] == pytest.approx(known[name])
    films = torch.cat(scored.films)
    third = asked.learner.adaptation(asked.source.sampler[3]).films[-1]
    for site, places in columns_of(asked.learner).items():
        for name, place in zip(film.names(site), places, strict=True):
            torch.testing.assert_close(films[3, place], third[name][0], rtol=1e-4, atol=1e-5)
    wrong = sum(scored.pairs.values())
    assert wrong == 12 * 12 - int(torch.cat(scored.right[scored.stages[-1]]).sum())
    assert sum(scored.group_pairs.values()) == 12 * 12
    worst = sorted(row[-1] for row in scored.rows)[:5]
    assert [seen.score for seen in scored.worst] == worst


def test_calibration_is_the_evaluations(asked):
    """Over queries of tasks of any number of ways, and once more at the temperature kept with the weights."""
    asked.learner.calibration = Calibration((Level(1, 2.0, (0.0, 1.0)),), asked.learner.fingerprint())
    scored = score(asked.learner, asked.source, 6, Names(asked.source))
    assert list(scored.sure) == [*scored.stages, "calibrated"]
    with torch.no_grad():
        outcome = asked.learner(asked.source.sampler.batch(range(6)))
    labels = asked.source.sampler.batch(range(6)).query_labels.flatten()
    for stage, temperature in ((scored.stages[-1], 1), ("calibrated", 2)):
        probabilities = (outcome.predictions[-1] / temperature).softmax(-1).flatten(0, 1)
        assert calibrated(scored, stage)[1] == pytest.approx(calibration_error(probabilities, labels))
    assert "at the calibrated temperature" in run_report(Found("x"), asked)


def test_of_many_steps_the_first_and_last_are_shown():
    stages = ["identity", "encoder", *(f"step {k}" for k in range(1, 21)), "gate"]
    assert [stages[i] for i in shown(stages)] == ["identity", "encoder", "step 1", "step 20", "gate"]
    assert shown(["identity", "step 1", "step 2"]) == [0, 1, 2]


def test_the_whole_page(asked, run):
    found = find(str(run.path))
    text = run_report(found, asked)
    for title in (
        "Accuracy by stage", "Training", "Deviations", "Map of tasks", "Reliability", "Confusion",
        "Where it went worst", "Record",
    ):  # fmt: skip
        assert re.search(rf"<h2 id=[^>]+>{title}", text), title
    assert "coloured by the group of their classes" in text
    assert "&lt;b&gt;Latin&lt;/b&gt;" in text and "<b>Latin" not in text
    known = evaluate(asked.learner, asked.source.sampler, 12)
    assert f"{known['accuracy']:.2f} ± {known['ci95']:.2f}" in text
    assert "It is at" not in text and "at iteration 50 of 4" not in text
    # nothing from elsewhere, and nothing that runs
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "<script" not in text and "url(" not in text


def test_a_half_written_run_gives_what_there_is(run):
    run.metrics_file.write_bytes(run.metrics_file.read_bytes() + b'{"iteration": 60, "lo')
    found = find(str(run.path))
    text = run_report(found, None)
    assert "There are no weights yet" in text and "Outer loss on training tasks" in text
    assert "Over training: size of the gain" in text and "Map of tasks" not in text


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.jsonl", b"", "no metrics yet"),
        ("metrics.jsonl", b'nonsense\n{"iteration": 1, "loss": "x", "sizes": 3}\n', "line 1"),
        ("config.yaml", b"{", "settings can't be read"),
        ("results.json", b"[1,", "results.json is damaged"),
    ],
)
def test_damaged_files_are_said(run, file, content, said):
    (run.path / file).write_bytes(content)
    found = find(str(run.path))
    assert any(said in text for text in found.missing), found.missing
    assert said in run_report(found, None).replace("&#x27;", "'")


def test_weights_alone_and_nothing():
    found = find("omniglot-conv4")
    assert found.run is None and "weights alone" in found.missing[0]
    with pytest.raises(CheckpointError, match="neither a run directory"):
        find("omniglot-conv5")


def test_a_training_says_what_it_was_made_with(run):
    run.write_results({"threads": 1, "environment": environment()})
    text = run_report(find(str(run.path)), None)
    assert environment()["hardware"] and "trained with torch" in text and environment()["torch"] in text


def test_a_pretraining_has_curves_and_no_stages(run):
    found = find(str(run.path))
    assert "Pre-training" not in run_report(found, None)
    before = [
        {"iteration": i, "seconds": 1.0, "pretrain_loss": 4.0 + i, "pretrain_accuracy": 50.0 + i}
        for i in range(-3, 1)
    ]
    before[-1] |= {"validation_accuracy": 55.0, "validation_ci95": 2.0}
    page = run_report(replace(found, metrics=[*before, *metrics()]), None)
    assert "Pre-training, all training classes" in page and "the same before adaptation" in page


def test_results_and_settings_are_in_the_record(run):
    run.results_file.write_text(json.dumps({"best_validation": 61.5, "threads": 1, "odd": ["<i>"]}))
    text = run_report(find(str(run.path)), None)
    assert "61.5" in text and "&lt;i&gt;" in text and "meta_batch: 2" in text


def test_tasks_by_criterion_are_mapped_by_criterion(make_learner, tiny_config):
    pool = episodes.load("criteria", "val", image_size=16)
    learner = make_learner(dtype=torch.float32, shape=(3, 16, 16)).eval()
    source = Source(CriterionSampler(pool, 3, 2, 2, 0), (pool,))
    text = run_report(Found("x"), Asked(learner, tiny_config(), source, "val", 20))
    assert "coloured by criterion" in text and "Gain of adaptation by data set or criterion" in text
    assert all(f"{name}" in text for name in source.sampler.domains)


def test_functions_have_errors_and_curves(make_learner, tiny_config):
    sections = {
        "data": {"name": "sinusoids", "image_size": None},
        "backbone": {"name": "mlp", "hidden": (8, 8)},
        "head": {"name": "regression"},
    }
    learner = make_learner(dtype=torch.float32, shape=(1,), **sections).eval()
    sampler = episodes.dataset("sinusoids").sampler(shots=5, queries=10, seed=0)
    config = tiny_config(**sections)
    text = run_report(Found("sines"), Asked(learner, config, Source(sampler, ()), "val", 6))
    assert "Mean squared error by stage" in text and "Reliability" not in text
    assert "support points" in text


def test_without_adaptation_it_says_so(make_learner, grouped, tiny_config):
    learner = make_learner(dtype=torch.float32, encoder={"enabled": False}, inner={"steps": 0}).eval()
    source = Source(EpisodeSampler(grouped, 3, 2, 4, 1), (grouped,))
    text = run_report(Found("plain"), Asked(learner, tiny_config(), source, "val", 4))
    assert "these tasks were not adapted" in text and "nothing to map" in text


def test_a_learner_that_does_not_adapt_by_itself_shows_what_adapting_would_do(asked, tiny_config) -> None:
    before = score(asked.learner, asked.source, 4, Names(asked.source))
    asked.learner.stage = "identity"
    scored = score(asked.learner, asked.source, 4, Names(asked.source))
    assert scored.stages == [*before.stages, "chosen"] and scored.farthest == before.farthest
    torch.testing.assert_close(torch.cat(scored.films), torch.cat(before.films))
    assert [row[:-1] for row in scored.rows] == before.rows
    assert all(row[-1] == row[0] for row in scored.rows)
    text = run_report(Found("plain"), asked)
    assert "as it adapts by itself" in text and "these tasks were not adapted" not in text
