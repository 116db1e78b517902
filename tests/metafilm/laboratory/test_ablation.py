"""The laboratory: every arm is possible, trained once, scored, resumed, and shown."""

import json
import math
from dataclasses import replace

import pytest
import torch
import yaml

from metafilm.cli import main
from metafilm.config import load_config
from metafilm.errors import ConfigError, MetafilmError, NotFinite, RunError
from metafilm.evaluation import interval
from metafilm.laboratory import QUESTIONS, Ablation, Arm, Base, Job, ablation, answers, figure, jobs, tables
from metafilm.storage.run import RunDirectory
from metafilm.training.optimiser import schedule

pytestmark = pytest.mark.filterwarnings("ignore:.*overfits its training classes:UserWarning")


@pytest.fixture
def base(tiny, tmp_path) -> Base:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.to_dict()))
    return Base(str(tmp_path / "tiny.yaml"), tiny)


@pytest.mark.parametrize("name", ["laboratory_omniglot", "laboratory_miniimagenet"])
def test_every_arm_of_the_shipped_laboratory_is_possible(name) -> None:
    found = jobs([Base(name, load_config(name))], tuple(QUESTIONS), [8, None], [0, 1])
    assert {job.question for job in found} == set(QUESTIONS)
    places = {}
    for job in found:
        config = job.config.validate()
        assert config.data.classes == job.classes and config.seed == job.seed
        assert places.setdefault(job.training, config) == config, "one folder for two trainings"
    assert len(places) < len(found)  # what several questions ask is trained once
    decays = {job.arm.name for job in found if job.question == "penalty" and not job.changes}
    assert decays == {"penalty 0.01"}  # the base's own
    sites = [job.config.film.sites for job in found if job.question == "sites" and job.seed == 0]
    assert "all" in sites and ("features",) in sites and ("blocks.2.norm",) in sites
    assert {job.arm.support for job in found if job.question == "deviations"} == {"own", "mean", "shuffled"}
    changed = {job.config.episodes.augment for job in found if job.question == "augmentation"}
    photographs = {"none", "crop-flip", "crop-flip-jitter"}
    assert changed == ({"none", "affine", "handwriting"} if "omniglot" in name else photographs)
    changed = replace(load_config(name).episodes, augment="affine", warp=True)
    other = replace(load_config(name), episodes=changed)
    arms = jobs([Base(name, other)], ["augmentation"], [8], [0])
    pairs = {job.arm.name: (job.config.episodes.augment, job.config.episodes.warp) for job in arms}
    assert pairs["as they are"] == ("none", False) and pairs["warped tasks"] == ("none", True)
    assert len(set(pairs.values())) == len(pairs) == len({job.training for job in arms})


@pytest.mark.parametrize("name", ["laboratory_omniglot", "laboratory_miniimagenet"])
def test_some_decays_of_the_shipped_laboratory_shrink_weights(name) -> None:
    """AdamW takes learning rate × decay at each step: at 1e-2 all of a training takes 1 % of a weight."""
    config = load_config(name)
    outer = config.outer
    rates = sum(outer.learning_rate * schedule(step, outer) for step in range(outer.iterations))
    assert outer.optimiser == "adamw" and rates == pytest.approx(
        1, abs=0.01
    )  # as docs/regularisation.md says
    for question in ("encoder-decay", "backbone-decay"):
        values = [next(iter(arm.settings.values())) for arm in QUESTIONS[question].arms(config)]
        shrinkage = [1 - math.exp(-rates * value) for value in values]
        assert shrinkage[0] == 0 and max(shrinkage) > 0.99 and any(0.05 < s < 0.9 for s in shrinkage)


def test_questions_and_names_that_are_none(tiny) -> None:
    with pytest.raises(MetafilmError, match="no question 'penality'; did you mean penalty"):
        jobs([Base("tiny", tiny)], ["penality"], [8], [0])
    with pytest.raises(MetafilmError, match="two configurations have one name"):
        jobs([Base("a", tiny), Base("b", tiny)], ["penalty"], [8], [0])
    bounded = replace(tiny, inner=replace(tiny.inner, steps=1))
    arms = jobs([Base("a", bounded)], ["modulation"], [8], [0])
    with pytest.raises(ConfigError, match=r"--film\.modulation bounded"):
        _ = [job.config for job in arms]
    blind = replace(tiny, encoder=replace(tiny.encoder, enabled=False))
    asked = jobs([Base("a", blind)], ["deviations", "decoder", "encoder-decay", "auxiliary"], [8], [0])
    assert {job.question for job in asked} == {"auxiliary"}
    with pytest.raises(MetafilmError, match=r"decoder: nothing to ask of tiny without a task encoder"):
        jobs([Base("a", blind)], ["decoder"], [8], [0])


def test_what_adapts_is_said_in_full_whatever_the_base_does(tiny) -> None:
    inner = replace(tiny.inner, steps=1, evaluation_steps=5, gate=True)
    bases = [tiny, replace(tiny, inner=inner)]
    bases.append(replace(bases[1], encoder=replace(tiny.encoder, enabled=False)))
    for base in bases:
        found = {job.arm.name: job.config for job in jobs([Base("a", base)], ["weights"], [8], [0])}
        said = {
            name: (c.encoder.enabled, c.inner.steps, c.inner.evaluation_steps, c.inner.gate, c.inner.adapts)
            for name, c in found.items()
            if name != "the configuration"
        }
        assert said == {
            "nothing adapts": (False, 0, None, False, "film"),
            "FiLM, task encoder": (True, 0, None, False, "film"),
            "FiLM, 3 steps": (False, 3, None, False, "film"),
            "all weights, 3 steps": (False, 3, None, False, "all"),
        }


def test_a_finished_training_is_of_the_settings_it_had(base, tmp_path, monkeypatch) -> None:
    """Other validations choose other weights; another number of threads is nothing to score anew for."""
    with Ablation(tmp_path / "lab", 4) as folder:
        ((_, before),) = folder.run([Job(base, "penalty", Arm("base"), 5, 0)], progress=False)
    monkeypatch.setattr(ablation, "train", None)  # called, it would fail
    monkeypatch.setattr(ablation, "evaluate", None)
    threads = replace(base, config=replace(base.config, threads=2))
    with Ablation(tmp_path / "lab", 4) as folder:
        ((_, again),) = folder.run([Job(threads, "penalty", Arm("base"), 5, 0)], progress=False)
    assert again["settings"]["threads"] == 1 and again["scores"] == before["scores"]
    often = replace(base.config, evaluation=replace(base.config.evaluation, every=1))
    other = Job(replace(base, config=often), "penalty", Arm("base"), 5, 0)
    with (
        Ablation(tmp_path / "lab", 4) as folder,
        pytest.raises(RunError, match=r"--evaluation\.every is 1, was 2"),
    ):
        list(folder.run([other], progress=False))


@pytest.mark.slow
def test_the_command_trains_scores_and_draws(base, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    one = replace(QUESTIONS["penalty"], arms=lambda _: [Arm("none", {"outer.penalty": 0.0})])
    monkeypatch.setitem(QUESTIONS, "penalty", one)
    words = "ablate tiny.yaml --questions penalty deviations --classes 4 0 --episodes 4 --iterations 2"
    assert main([*words.split(), "--list"]) == 0
    assert "10 arms, 4 trainings" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    assert main(words.split()) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "runs" / "ablation"
    table = (folder / "table.md").read_text()
    assert table in shown and "| arm | 4 classes | all classes |" in table
    assert QUESTIONS["deviations"].title in table and "another task's" in table
    assert (folder / "tiny.svg").read_text().startswith("<?xml")
    records = json.loads((folder / "records.json").read_text())
    assert len(records) == 8
    by_arm = {(r["classes"], json.dumps(r["changes"]), r["encoder_support"]): r for r in records}
    for record in records:
        own = by_arm[record["classes"], "{}", "own"]
        if record is own:
            assert record["gain"] is None and set(record["answers"]) == {"penalty", "deviations"}
        else:
            paired = [a - b for a, b in zip(record["scores"], own["scores"], strict=True)]
            assert record["gain"] == sum(paired) / 4 and record["gain_ci95"] == interval(paired)
        assert sum(record["scores"]) / 4 == pytest.approx(record["accuracy"], rel=1e-5)
        other = record["encoder_support"] != "own"
        assert other == ("encoder_difference" in record) == ("encoder_shared_classes" in record)
        if other:
            assert record["encoder_difference"] == pytest.approx(-record["gain"], abs=1e-3)
            assert record["encoder_difference_ci95"] == pytest.approx(record["gain_ci95"], abs=1e-3)
        assert record["gap"] == pytest.approx(record["training_classes_accuracy"] - record["accuracy"])
        assert record["split"] == "val" and record["episodes"] == 4 and record["protocol"] == "inductive"
        assert record["precision"] == "float32"
        assert record["hardware"] and record["wall_seconds"] > 0 and "validation_accuracy" in record["last"]
        assert record["settings"]["outer"]["iterations"] == 2
        assert record["settings"]["data"]["classes"] == record["classes"]
    first = next(r for r in records if r["changes"] and r["classes"] == 4)
    place = folder / "tiny" / "classes-004" / "outer.penalty=0.0-seed0"
    wanted = "metafilm train tiny.yaml --outer.iterations 2 --data.classes 4 --outer.penalty 0.0 --run-dir"
    assert first["train_command"] == f"{wanted} {place.relative_to(tmp_path)}"
    # the commands of a record are the ones that made it
    assert main(first["train_command"].split()[1:]) == 0
    assert main(first["command"].split()[1:]) == 0
    assert json.loads((folder / "records.json").read_text()) == records
    # of fewer arms, and of some asked for twice: the tables are of all that there is
    few = "ablate tiny.yaml --questions deviations deviations --classes 4 4 --seeds 0 0 --episodes 4"
    capsys.readouterr()
    assert main([*few.split(), "--iterations", "2"]) == 0
    assert "3 arms, 1 trainings" in capsys.readouterr().out
    assert (folder / "table.md").read_text() == table
    assert json.loads((folder / "records.json").read_text()) == records
    assert main([*words.split(), "--classes", "1"]) == 2
    assert main([*words.split(), "--classes", "400"]) == 2
    assert "--data.classes is 400" in capsys.readouterr().err


def test_an_ablation_goes_on_where_it_was_stopped(base, tmp_path, monkeypatch) -> None:
    """Stopped within the second training: the first is not done again, the second not from its start."""
    wanted = [Job(base, "penalty", Arm(f"{value}", {"outer.penalty": value}), 5, 0) for value in (0.0, 0.5)]
    plain, trained = ablation.train, []

    def stopping(config, run, tracker, *args, **named):
        trained.append(config.outer.penalty)

        def stop(record):
            if len(trained) == 2:
                raise KeyboardInterrupt
            return False

        return plain(config, run, tracker, *args, **named, validated=stop)

    monkeypatch.setattr(ablation, "train", stopping)
    with Ablation(tmp_path / "lab", 4) as folder, pytest.raises(KeyboardInterrupt):
        list(folder.run(wanted, progress=False))
    second = RunDirectory(tmp_path / "lab" / wanted[1].training)
    assert second.load_checkpoint()["iteration"] == 2 and second.read_results() is None
    with Ablation(tmp_path / "lab", 4) as folder:
        assert [folder.done(job) is not None for job in wanted] == [True, False]
        with pytest.raises(RunError, match="in use"), Ablation(tmp_path / "lab", 4):
            pass
        found = list(folder.run(wanted, progress=False))
    assert trained == [0.0, 0.5, 0.5]
    assert [record["changes"] for _, record in found] == [{"outer.penalty": 0.0}, {"outer.penalty": 0.5}]
    assert [r["iteration"] for r in second.read_metrics() if "gap" in r] == [2, 4, 6]
    with Ablation(tmp_path / "lab", 5) as folder:  # other episodes: scored anew, not trained anew
        assert folder.done(wanted[0]) is None
        list(folder.run(wanted, progress=False))
    assert len(trained) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"no ablation's folder.*thesis\.tex"), Ablation(tmp_path / "mine"):
        pass
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".records.json.17.tmp").write_text("[")  # of a process killed while it wrote
    with Ablation(tmp_path / "killed") as folder:
        assert not list(folder.path.glob(".*.tmp"))


def test_a_damaged_file_of_records_is_mended_as_it_says(base, tmp_path) -> None:
    job = Job(base, "penalty", Arm("base"), 5, 0)
    with Ablation(tmp_path / "lab", 4) as folder:
        list(folder.run([job], progress=False))
    before = folder.records[job.key]
    folder.records_file.write_text('[{"key": ')
    with pytest.raises(RunError, match=r"is damaged; write \[\] into it"), Ablation(tmp_path / "lab", 4):
        pass
    folder.records_file.write_text("[]")
    with Ablation(tmp_path / "lab", 4) as folder:
        assert folder.done(job) is None
        ((_, again),) = folder.run([job], progress=False)
    assert (again["scores"], again["training_seconds"]) == (before["scores"], before["training_seconds"])


def test_an_ablation_of_an_older_version_goes_on(base, tmp_path, monkeypatch) -> None:
    """Its records say neither the score of each task nor which arms they are: they are scored anew, their
    trainings are kept, and those that are not asked for stand aside."""
    wanted = [Job(base, "penalty", Arm("base"), 5, 0)]
    wanted += [
        Job(base, "penalty", Arm(f"{p}", {"outer.penalty": p}), 5, 0, i) for i, p in ((1, 0.0), (2, 0.5))
    ]
    with Ablation(tmp_path / "lab", 4) as folder:
        now = [dict(record) for _, record in folder.run(wanted, progress=False)]
    newer = ("scores", "training_classes_scores", "answers", "gain", "gain_ci95")
    before = [{name: value for name, value in record.items() if name not in newer} for record in now]
    before[2]["failed"] = "diverged"
    folder.records_file.write_text(json.dumps(before))
    monkeypatch.setattr(ablation, "train", None)  # called, it would fail
    with Ablation(tmp_path / "lab", 4) as folder:
        assert [folder.done(job) is not None for job in wanted] == [False, False, True]
        ((_, again),) = folder.run(wanted[1:2], progress=False)
        assert again["scores"] == now[1]["scores"] and again["gain"] is None
        assert list(answers(folder.records.values())["tiny"]["penalty"]) == ["0.0"]
        list(folder.run(wanted, progress=False))
        assert folder.records[wanted[1].key]["gain"] == now[1]["gain"] is not None
        said = answers(folder.records.values())["tiny"]["penalty"]
    assert {arm: cell[5]["failed"] for arm, cell in said.items()} == {"base": 0, "0.0": 0, "0.5": 1}


def test_arms_of_one_training_are_all_shown(base, tmp_path, monkeypatch) -> None:
    """Without a penalty, "deviations" are "deviations, no penalty"; of two sites, half of them is one."""
    plain = replace(base.config, outer=replace(base.config.outer, penalty=0.0))
    wanted = jobs([Base(base.source, plain)], ["parametrisation", "penalty"], [5], [0])
    assert len({job.key for job in wanted[:4]}) == 2
    with Ablation(tmp_path / "lab", 4) as folder:
        list(folder.run(wanted[:5], progress=False))
    said = answers(folder.records.values())["tiny"]
    assert list(said["parametrisation"]) == [job.arm.name for job in wanted[:4]]
    assert said["parametrisation"]["raw"] == said["parametrisation"]["raw, no penalty"]
    assert list(said["penalty"]) == ["penalty 0"]
    with Ablation(tmp_path / "lab", 4) as folder, monkeypatch.context() as patch:
        patch.setattr(Ablation, "_write", None)  # called, it would fail
        list(folder.run(wanted[:5], progress=False))
    # a record that knows one arm of each question
    for record in folder.records.values():
        record["answers"] = {question: arms[-1] for question, arms in record["answers"].items()}
    folder.records_file.write_text(json.dumps(list(folder.records.values())))
    with Ablation(tmp_path / "lab", 4) as folder:
        list(folder.run(wanted[:5], progress=False))
    assert answers(folder.records.values())["tiny"] == said


@pytest.mark.parametrize("error", [NotFinite, torch.linalg.LinAlgError])
def test_an_arm_without_finite_scores_is_one_of_many(base, tmp_path, monkeypatch, error) -> None:
    wanted = [Job(base, "penalty", Arm(f"{value}", {"outer.penalty": value}), 5, 0) for value in (0.0, 0.5)]
    plain = ablation.evaluate

    def evaluate(learner, *arguments, **named):
        if learner.config.outer.penalty == 0:
            raise error("the predictions of episode 3 are not finite")
        return plain(learner, *arguments, **named)

    monkeypatch.setattr(ablation, "evaluate", evaluate)
    with Ablation(tmp_path / "lab", 4) as folder:
        found = [record["failed"] for _, record in folder.run(wanted, progress=False)]
        assert found == ["the predictions of episode 3 are not finite", None]
        monkeypatch.setattr(ablation, "evaluate", None)
        assert [record["failed"] for _, record in folder.run(wanted, progress=False)] == found
    text = tables(answers(folder.records.values()))
    assert "| 0.0 | failed (0/1 seeds) |" in text and "| 0.5 | " in text
    assert figure(answers(folder.records.values())["tiny"])


def test_the_configuration_itself_is_an_arm_of_every_question(tiny) -> None:
    arms = [job.arm.name for job in jobs([Base("a", tiny)], ["penalty"], [8, 8], [0, 0])]
    assert arms == [f"penalty {value}" for value in ("0", "0.0001", "0.001", "0.01", "0.1", "1")]
    other = replace(tiny, outer=replace(tiny.outer, penalty=0.3))
    found = jobs([Base("a", other)], ["penalty"], [8], [0])
    assert [job.arm.name for job in found] == ["the configuration", *arms]
    assert not found[0].changes and [job.place for job in found] == list(range(7))
