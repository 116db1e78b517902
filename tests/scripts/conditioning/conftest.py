"""What the tests of systems share whose test examples are for `write`: a small training, and a run through
the command line. script: the system's module."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from metafilm.errors import MetafilmError
from scripts.conditioning import running

ROOT = Path(__file__).resolve().parents[3]
KEYS = (
    "system arm setting metric value ci95 seeds parameters training_seconds hardware commit command "
    "config protocol tested_on".split()
)


@pytest.fixture
def losses(monkeypatch):
    """(script, settings, folder) -> the losses of a training's steps."""

    def trained(script, settings, folder):
        found = []
        real = running.train

        def noted(model, loss, *rest, **more):
            def of_step(step):
                value = loss(step)
                found.append(value.item())
                return value

            return real(model, of_step, *rest, **more)

        with monkeypatch.context() as patch:
            patch.setattr(running, "train", noted)
            script.fit(script.make(settings), settings, folder, "a test")
        return found

    return trained


@pytest.fixture
def through(tmp_path, monkeypatch, capsys):
    """(script, metrics, arm, changes) -> its records, of two seeds trained, listed and written twice, and
    where the runs are."""

    def run(script, metrics, arm, changes):
        system = script.SYSTEM
        monkeypatch.setattr(system, "out", tmp_path / "results" / "records.json")
        runs = ["--runs", str(tmp_path / "runs")]
        shared = ["--arm", arm, *runs, *(word for one in changes for word in ("--set", one))]
        with pytest.raises(MetafilmError, match="no finished runs in"):
            script.SYSTEM.main(["write", "--runs", str(tmp_path)])
        for seed in ("0", "1"):
            script.SYSTEM.main(["train", "--seed", seed, *shared])
        assert capsys.readouterr().out.count(f"validation: {metrics[0]} ") == 2
        kept = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/scores.json")]
        assert [list(one["scores"]) for one in kept] == [["val"]] * 2  # test examples are for `write`
        script.SYSTEM.main(["write", *runs])
        once = system.out.read_text()
        with monkeypatch.context() as patch:
            patch.setattr(running, "restore", None)  # what is tested is not tested again
            script.SYSTEM.main(["write", *runs])
        assert system.out.read_text() == once
        records = json.loads(once)
        assert [one["metric"] for one in records] == metrics
        for one in records:
            assert set(KEYS) <= set(one) and one["system"] == system.name
            assert one["seeds"] == [0, 1] and one["ci95_over"] == "seeds" and "validation" in one
            assert one["value"] == pytest.approx(sum(one["by_seed"]) / 2, abs=1e-3)
            assert [each["commit"] for each in one["scored"]] == [one["commit"]] * 2
            assert one["tested_on"] == system.tested_on and (ROOT / one["config"]) == system.config
            before, _, command = one["command"].partition("; do ")
            assert before == "for seed in 0 1" and command.endswith(" --seed $seed; done") == (not changes)
            said = shlex.split(command.removesuffix("; done").replace("$seed", "0"))
            assert said[:2] == ["python", f"scripts/conditioning/{system.name.replace('-', '_')}.py"]
            options = system.parsed(None, said[2:])
            again = system.settings(options.arm, [f"seed={options.seed}", *options.set])
            assert json.loads(json.dumps(vars(again))) == {**one["setting"], "seed": 0}
        script.SYSTEM.main(["list", *runs])
        assert f"seed 1: {metrics[0]} " in capsys.readouterr().out
        return records, tmp_path / "runs"

    return run


@pytest.fixture
def resumes(monkeypatch):
    """(script, settings, folder): a training that died in step 3 ends in the weights of one that did not, and
    so does what `running.restore` gives."""

    def check(script, settings, folder):
        def trained(name):
            model = script.make(settings)
            script.fit(model, settings, folder / name, "a test")
            return model.state_dict()

        whole = trained("whole")
        real = running.train

        def dies(model, loss, plan, *rest, **more):
            def of_step(step):
                if step == 3:
                    raise KeyboardInterrupt
                return loss(step)

            return real(model, of_step, plan, *rest, save_seconds=0.0)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(running, "train", dies)
            trained("parts")
        resumed, restored = trained("parts"), script.make(settings)
        running.restore(restored, folder / "parts")
        for name, value in whole.items():
            assert torch.equal(value, resumed[name]), name
            assert torch.equal(value, restored.state_dict()[name]), name

    return check
