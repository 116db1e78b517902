"""Sweeps: trials that several processes share, that survive kill -9, and that are given up early."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from episodes.errors import EpisodesError
from metafilm.cli import main
from metafilm.config import Config
from metafilm.errors import MetafilmError, RunError
from metafilm.laboratory import Choice, Plan, Range, StudyFolder, conclude, importance, study, sweep
from metafilm.laboratory.space import default_space, with_values
from metafilm.storage.run import RunDirectory
from metafilm.training.run import train

optuna = pytest.importorskip("optuna", reason="optuna is not installed (the extra `sweep`)")

ROOT = Path(__file__).parents[3]
sweep_module = importlib.import_module(
    "metafilm.laboratory.sweep"
)  # the package has its function by that name
pytestmark = pytest.mark.filterwarnings("ignore:.*overfits its training classes:UserWarning")
SPACE = {"outer.penalty": Range(1e-3, 1.0, log=True), "encoder.decoder": Choice(("linear", "gru"))}


class Nowhere:
    def log(self, record) -> None: ...


def longer(config: Config, iterations: int) -> Config:
    return replace(config, outer=replace(config.outer, iterations=iterations))


def settled(folder: StudyFolder) -> list[tuple]:
    return [(t.number, t.state.name, t.value, t.params) for t in folder.trials()]


@pytest.mark.slow
def test_a_sweep_and_its_table(tiny, tmp_path, capsys, monkeypatch) -> None:
    """From the command line: all trials, the configuration's own values first, and what is written."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny.to_dict()))
    command = "sweep tiny.yaml --search outer.penalty=1e-3..1:log encoder.decoder=linear,gru --trials 5 "
    command += "--pruner none --outer.iterations 4 --startup 2"
    assert main(command.split()) == 0
    shown = capsys.readouterr().out
    assert "sweep of tiny, tpe: 5 done" in shown and "penalty" in shown and "metafilm eval" in shown
    found = json.loads(Path("runs/tiny-sweep/trials.json").read_text())
    assert found["command"] == f"metafilm {command}" and found["split"] == "val"
    trials = found["trials"]
    scores = [trial["validation"] for trial in trials]
    assert scores == sorted(scores, reverse=True)
    first = next(trial for trial in trials if trial["trial"] == 0)
    assert first["settings"] == {"outer.penalty": 0.01, "encoder.decoder": "linear"}
    assert set(first["validations"]) == {"2", "4"} and first["environment"]["hardware"]
    best = Config.from_yaml("runs/tiny-sweep/best.yaml")
    run = RunDirectory(f"runs/tiny-sweep/trials/{trials[0]['trial']:04}")
    assert best == replace(run.config(), name="tiny") and best.outer.iterations == 4
    assert run.read_results()["best_validation"] == trials[0]["validation"] and run.model_file.is_file()
    assert "too few trials that differ (5 done)" in shown
    assert main(command.split()) == 0  # all is there: nothing is trained
    assert json.loads(Path("runs/tiny-sweep/trials.json").read_text()) == found
    assert main([*command.split(), "--sampler", "random", "--run-dir", "runs/tiny-sweep"]) == 2
    assert "--sampler is random, was tpe" in capsys.readouterr().err


def test_random_proposals_depend_on_seed_and_number_alone(tiny, tmp_path) -> None:
    def drawn(name: str, sampler: str, pause: bool, seed: int = 0) -> list[dict]:
        plan = Plan(replace(tiny, seed=seed), SPACE, sampler)
        folder = StudyFolder.open(tmp_path / name, plan)
        for _ in range(3):
            if pause:  # as another process would
                folder = StudyFolder.open(tmp_path / name, plan)
            claimed = folder.claim(3)
            assert claimed is not None
            claimed.run.close()
            folder.finish(claimed.id, claimed.number, "COMPLETE", 50.0)
        assert folder.claim(3) is None
        return [trial.params for trial in folder.trials()]

    whole, parts = drawn("a", "random", False), drawn("b", "random", True)
    assert whole == parts and len({str(values) for values in whole}) == 3
    assert drawn("c", "random", False, seed=1)[1:] != whole[1:]
    assert drawn("d", "tpe", True)[0] == whole[0]  # the configuration's own


def test_what_a_dead_process_left_is_taken_up_and_what_a_living_one_has_is_not(tiny, tmp_path) -> None:
    plan = Plan(tiny, SPACE)
    folder, other = (StudyFolder.open(tmp_path / "sweep", plan) for _ in range(2))
    mine = folder.claim(2)
    theirs = other.claim(2)
    assert mine is not None and theirs is not None and (mine.number, theirs.number) == (0, 1)
    assert folder.claim(2) is None  # two are begun, both by the living
    theirs.run.close()  # as the system does for a process that dies
    again = folder.claim(2)
    assert again is not None and again.number == 1 and again.config == theirs.config
    half = folder.study.ask()  # a process that died before its settings were drawn
    assert other.claim(2) is None
    assert folder.study.trials[half.number].state.name == "FAIL" and len(folder.trials()) == 2
    mine.run.close(), again.run.close()


def test_a_trial_that_is_finished_while_another_process_looks_is_not_taken_up(
    tiny, tmp_path, monkeypatch
) -> None:
    folder, other = (StudyFolder.open(tmp_path / "sweep", Plan(tiny, SPACE)) for _ in range(2))
    mine = folder.claim(1)
    assert mine is not None
    plain = study.in_use

    def late(path: Path) -> bool:
        folder.finish(mine.id, mine.number, "COMPLETE", 50.0)
        mine.run.close()
        return plain(path)

    monkeypatch.setattr(study, "in_use", late)
    assert other.claim(1) is None


def test_a_trial_worse_than_the_median_is_given_up(tiny, tmp_path) -> None:
    """Earlier trials that no tiny training can reach: the first judged validation ends it."""
    plan = Plan(tiny, SPACE, "random", startup=2)
    folder = StudyFolder.open(tmp_path / "sweep", plan)
    for penalty in (0.1, 0.2):
        folder.study.add_trial(
            optuna.create_trial(
                params={"outer.penalty": penalty, "encoder.decoder": "gru"},
                distributions=study.distributions(SPACE),
                intermediate_values={2: 101.0, 4: 101.0, 6: 101.0},
                value=101.0,
            )
        )
    sweep(folder, 3, progress=False)
    given_up = folder.trials()[0]  # the configuration's own values waited before these were added
    assert given_up.state.name == "PRUNED" and list(given_up.intermediate_values) == [2]
    run = RunDirectory(folder.trial_path(given_up.number))
    assert run.read_results()["iterations"] == 2 < tiny.outer.iterations
    unjudged = StudyFolder.open(tmp_path / "other", replace(plan, pruner="none"))
    sweep(unjudged, 1, progress=False)
    assert unjudged.trials()[0].state.name == "COMPLETE"


def test_a_trial_that_came_to_its_end_is_not_given_up_any_more(tiny, tmp_path) -> None:
    """And one that is given up is as good as its best validation, not its last."""
    folder = StudyFolder.open(tmp_path / "sweep", Plan(tiny, SPACE, "random", startup=1))
    folder.study.add_trial(
        optuna.create_trial(
            params={"outer.penalty": 0.1, "encoder.decoder": "gru"},
            distributions=study.distributions(SPACE),
            intermediate_values={2: 70.0, 4: 70.0, 6: 70.0},
            value=70.0,
        )
    )
    claimed = folder.claim(2)
    assert claimed is not None
    with claimed.run:
        assert [folder.report(claimed, step, score) for step, score in ((2, 75.0), (6, 50.0))] == [False] * 2
    other = folder.claim(3)
    assert other is not None
    with other.run:
        reached = ((2, 60.0), (4, 75.0), (4, 50.0))
        assert [folder.report(other, step, score) for step, score in reached][-1] in (True, False)
    folder.finish(other.id, other.number, "PRUNED", best_validation=75.0, best_iteration=4)
    conclude(folder, "metafilm sweep")
    trials = json.loads(folder.trials_file.read_text())["trials"]
    assert next(trial for trial in trials if trial["trial"] == other.number)["validation"] == 75.0


def test_importance_is_held_against_chance(tiny, tmp_path) -> None:
    """One setting decides everything; of scores that nothing decides none is more than chance."""
    for name, score in (("told", lambda params, number: params["outer.penalty"]), ("noise", None)):
        folder = StudyFolder.open(tmp_path / name, Plan(tiny, SPACE, "random"))
        random = np.random.default_rng(1)
        for number in range(24):
            drawn = {"outer.penalty": float(random.uniform(0.001, 1)), "encoder.decoder": "gru"}
            drawn["encoder.decoder"] = ("linear", "gru")[number % 2]
            value = score(drawn, number) if score else float(random.normal())
            folder.study.add_trial(
                optuna.create_trial(params=drawn, distributions=study.distributions(SPACE), value=value)
            )
        shares, by_chance = importance(folder)
        assert set(shares) == set(by_chance) == set(SPACE) and sum(shares.values()) == pytest.approx(1)
        more = [setting for setting in shares if shares[setting] > by_chance[setting]]
        assert more == (["outer.penalty"] if score else [])
    assert "more than chance: none of them" in conclude(folder, "metafilm sweep")
    assert folder.importance_file.read_text().startswith("<?xml")


def test_the_configuration_is_a_trial_though_the_sweep_was_killed_at_once(
    tiny, tmp_path, monkeypatch
) -> None:
    """Before it waited in line, while its settings were drawn, or while sweep.json was written."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / ".sweep.json.17.tmp").write_text("{")
    plan = Plan(tiny, SPACE, "random")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "enqueue_trial", _interrupted)
        StudyFolder.open(tmp_path / "sweep", plan)
    folder = StudyFolder.open(tmp_path / "sweep", plan)
    assert [trial.state.name for trial in folder.study.trials] == ["WAITING"]
    folder.study.ask()  # and killed
    again = StudyFolder.open(tmp_path / "sweep", plan)
    first = again.claim(1)
    assert first is not None
    first.run.close()
    assert [t.params for t in again.trials()] == [{"outer.penalty": 0.01, "encoder.decoder": "linear"}]


def _interrupted(*arguments, **named):
    raise KeyboardInterrupt


def test_a_trial_that_fails_is_one_of_many(tiny, tmp_path, capsys) -> None:
    space = {"outer.learning_rate": Choice((1e-3, 1e30)), "outer.penalty": Choice((0.0, 0.5))}
    config = replace(tiny, outer=replace(tiny.outer, warmup=0, clip_norm=0.0))
    folder = StudyFolder.open(tmp_path / "sweep", Plan(config, space, "random"))
    folder.study.enqueue_trial({"outer.learning_rate": 1e30, "outer.penalty": 0.0})
    sweep(folder, 2, progress=False)
    ended = {trial.state.name: trial for trial in folder.trials()}
    assert set(ended) == {"COMPLETE", "FAIL"}
    assert "the outer" in ended["FAIL"].user_attrs["reason"]
    assert "failed:" in capsys.readouterr().out


def test_a_trial_that_cannot_be_trained_stops_no_other(tiny, tmp_path, monkeypatch) -> None:
    """More ways than there are classes, no memory, a trial that a dead process left in a directory that now
    holds something else: each has failed for its reason."""
    config = replace(tiny, evaluation=replace(tiny.evaluation, ways=3))
    plan = Plan(config, {"episodes.ways": Choice((3, 40)), "outer.penalty": Choice((0.0, 0.5))}, "random")
    folder = StudyFolder.open(tmp_path / "sweep", plan)
    folder.study.enqueue_trial({"episodes.ways": 40, "outer.penalty": 0.0})
    folder.study.enqueue_trial({"episodes.ways": 3, "outer.penalty": 0.5})
    left = folder.claim(4)
    assert left is not None and left.number == 0
    left.run.append_metrics({"iteration": 1})
    left.run.close()
    left.run.config_file.write_text(replace(left.config, seed=7).to_yaml())

    def memory(config, *arguments, **named):
        if config.outer.penalty:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return train(config, *arguments, **named)

    monkeypatch.setattr(sweep_module, "train", memory)
    folder.study.enqueue_trial({"episodes.ways": 3, "outer.penalty": 0.0})
    sweep(folder, 4, progress=False)
    reasons = [trial.user_attrs.get("reason", "") for trial in folder.trials()]
    assert [trial.state.name for trial in folder.trials()] == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
    for reason, said in zip(reasons, ["--seed is", "40", "can't allocate", ""], strict=True):
        assert said in reason


@pytest.mark.parametrize(
    ("setting", "said"), [("device", "sees no GPU"), ("tracking", "needs the wandb package")]
)
def test_what_the_machine_lacks_is_said_before_the_first_trial(
    tiny, tmp_path, monkeypatch, setting, said
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    wanted = {"device": "cuda", "tracking": replace(tiny.tracking, wandb="offline")}
    folder = StudyFolder.open(tmp_path / "sweep", Plan(replace(tiny, **{setting: wanted[setting]}), SPACE))
    with pytest.raises(MetafilmError, match=said):
        sweep(folder, 3, progress=False)
    assert folder.trials() == []


def test_an_error_of_the_machine_is_no_trials_fault(tiny, bars, tmp_path, monkeypatch) -> None:
    """Each ends the call, and the next takes the same trial up: data that are gone, checkpoints that are
    damaged, a GPU that others have filled, and what nobody foresaw."""
    shutil.copytree(bars, tmp_path / "bars")
    config = replace(tiny, data=replace(tiny.data, name=f"folder:{tmp_path / 'bars'}"))
    folder = StudyFolder.open(tmp_path / "sweep", Plan(config, SPACE, "random"))

    def gone(config, *arguments, **named):
        (tmp_path / "bars").rename(tmp_path / "unmounted")
        return train(config, *arguments, **named)

    def failing(error: Exception):
        def failed(*arguments, **named):
            raise error

        return failed

    def ends(trained, error: type[Exception], said: str) -> None:
        monkeypatch.setattr(sweep_module, "train", trained)
        with pytest.raises(error, match=said):
            sweep(folder, 2, progress=False)
        assert [trial.state.name for trial in folder.trials()] == ["RUNNING"]

    ends(gone, EpisodesError, "bars")
    (tmp_path / "unmounted").rename(tmp_path / "bars")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 20 * 2**30)
    ends(failing(torch.OutOfMemoryError("CUDA out of memory")), torch.OutOfMemoryError, "CUDA")
    ends(failing(RunError("checkpoint.pt is damaged")), RunError, "is damaged")
    ends(failing(RuntimeError("a fault of ours")), RuntimeError, "a fault of ours")
    monkeypatch.setattr(sweep_module, "train", train)
    sweep(folder, 2, progress=False)
    assert [trial.state.name for trial in folder.trials()] == ["COMPLETE", "COMPLETE"]


def test_trials_that_all_fail_for_one_reason_end_a_sweep(tiny, tmp_path, monkeypatch) -> None:
    """Of its own memory, alone on the GPU, or of its numbers; one done in between, or other reasons, let it
    go on."""
    folder = StudyFolder.open(tmp_path / "sweep", Plan(tiny, SPACE, "random"))
    reasons = iter(["first", "first", "", "first", "second", *["CUDA out of memory"] * 5])

    def memory(config, *arguments, **named):
        if reason := next(reasons):
            raise torch.linalg.LinAlgError(reason) if reason == "second" else torch.OutOfMemoryError(reason)
        return train(config, *arguments, **named)

    monkeypatch.setattr(sweep_module, "train", memory)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 78 * 2**30)
    with pytest.raises(
        MetafilmError, match=r"3 trials failed one after the other, trial 7 .*CUDA out of memory"
    ):
        sweep(folder, 10, progress=False)
    assert [trial.state.name for trial in folder.trials()] == [*["FAIL"] * 2, "COMPLETE", *["FAIL"] * 5]


def test_the_table_is_written_whatever_ends_a_sweep(tiny, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.to_dict()))
    folder = tmp_path / "sweep"

    def full(config, run, *arguments, **named):
        if run.path.name == "0001":
            raise OSError(28, "No space left on device")
        return train(config, run, *arguments, **named)

    monkeypatch.setattr(sweep_module, "train", full)
    words = "--search outer.penalty=1e-3..1:log --trials 3 --sampler random".split()
    assert main(["sweep", str(tmp_path / "tiny.yaml"), *words, "--run-dir", str(folder)]) == 2
    shown = capsys.readouterr()
    assert "1 done, 1 under way" in shown.out and "No space left" in shown.err
    states = [trial["state"] for trial in json.loads((folder / "trials.json").read_text())["trials"]]
    assert states == ["done", "under way"]


def test_other_folders_and_missing_packages_are_refused(tiny, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"no sweep's folder.*thesis\.tex"):
        StudyFolder.open(tmp_path / "mine", Plan(tiny, SPACE))
    StudyFolder.open(tmp_path / "sweep", Plan(tiny, SPACE))
    with pytest.raises(RunError, match=r"--outer\.iterations is 7, was 6"):
        StudyFolder.open(tmp_path / "sweep", Plan(longer(tiny, 7), SPACE))
    with pytest.raises(RunError, match="--search is"):
        StudyFolder.open(tmp_path / "sweep", Plan(tiny, {"inner.steps": Range(0, 1)}))
    with pytest.raises(MetafilmError, match=r'nothing_such not installed; pip install "metafilm\[sweep\]"'):
        study.require_optuna(("optuna", "nothing_such"))
    for name, value in (("--trials", "0"), ("--workers", "0")):
        assert main(["sweep", "demo", name, value, "--run-dir", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_a_sweep_without_a_search_goes_on_with_its_own(tiny, tmp_path, monkeypatch, capsys) -> None:
    """Though its default is another by now."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.to_dict()))
    older = default_space(tiny) | {"outer.weight_decay": Range(1e-6, 1e-2, log=True)}
    assert older != default_space(tiny)
    folder = StudyFolder.open(tmp_path / "sweep", Plan(tiny, older))
    assert study.space_of(tmp_path / "sweep") == older and study.space_of(tmp_path) is None
    monkeypatch.setattr("metafilm.cli.laboratory.sweep.sweep", lambda *arguments: None)
    words = ["sweep", str(tmp_path / "tiny.yaml"), "--run-dir", str(tmp_path / "sweep")]
    assert main(words) == 0
    assert "outer.weight_decay = 1e-06..0.01:log" in capsys.readouterr().out
    assert main([*words, "--search", "outer.weight_decay=1e-4..1:log"]) == 2
    assert "--search is" in capsys.readouterr().err
    folder.plan_file.write_text("{")
    assert main(words) == 2
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_kill_9_loses_no_trial(tiny, tmp_path) -> None:
    """The trial that was under way goes on from its checkpoint, to the last bit of the one never killed."""
    config = longer(tiny, 30)
    config = replace(config, evaluation=replace(config.evaluation, every=15))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config.to_dict()))
    words = "sweep tiny.yaml --search outer.penalty=1e-3..1:log --trials 2 --sampler random --run-dir sweep"
    process = subprocess.Popen(
        [sys.executable, "-m", "metafilm", *words.split()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    try:
        under_way = RunDirectory(tmp_path / "sweep" / "trials" / "0001")
        deadline = time.monotonic() + 120
        while not under_way.checkpoint_file.is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert under_way.read_results() is None, "killed too late to show anything"
    folder = StudyFolder.open(
        tmp_path / "sweep", Plan(config, {"outer.penalty": Range(1e-3, 1.0, log=True)}, "random")
    )
    assert [trial.state.name for trial in folder.trials()] == ["COMPLETE", "RUNNING"]
    sweep(folder, 2, progress=False)
    assert [trial.state.name for trial in folder.trials()] == ["COMPLETE", "COMPLETE"]
    trial = folder.trials()[1]
    whole = with_values(config, trial.params, name=under_way.config().name)
    with RunDirectory.open(tmp_path / "whole", whole) as run:
        results = train(whole, run, Nowhere(), progress=False)
    assert trial.value == results["best_validation"]
    assert under_way.model_file.read_bytes() == run.model_file.read_bytes()


@pytest.mark.slow
def test_two_workers_share_a_study(tiny, tmp_path) -> None:
    plan = Plan(tiny, SPACE, "random", "none")
    folder = StudyFolder.open(tmp_path / "shared", plan)
    sweep(folder, 6, workers=2, progress=False)
    alone = StudyFolder.open(tmp_path / "alone", plan)
    sweep(alone, 6, progress=False)
    assert settled(folder) == settled(alone)
    workers = {json.dumps(trial.user_attrs["process"]) for trial in folder.trials()}
    assert len(workers) == 2
