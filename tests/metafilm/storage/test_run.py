"""A run directory survives kills, keeps strangers out, and resumes only what matches."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from metafilm.config.config import Config
from metafilm.errors import RunError
from metafilm.storage.run import RunDirectory


def test_a_killed_writer_leaves_the_old_file_and_the_next_run_sweeps(tmp_path, state):
    with RunDirectory.open(tmp_path / "run", Config()) as run:
        run.save_checkpoint(state(1))
    script = (
        "import os, signal, sys\n"
        "from metafilm.storage.atomic import atomic_write\n"
        "def content(file):\n"
        "    file.write(b'torn')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic_write(sys.argv[1], content)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, run.checkpoint_file], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(name.endswith(".tmp") for name in os.listdir(run.path))
    assert run.load_checkpoint()["iteration"] == 1
    with RunDirectory.open(run.path, Config()) as run:
        assert not any(name.endswith(".tmp") for name in os.listdir(run.path))


def test_opening_makes_then_resumes(tmp_path):
    config = replace(Config(), seed=3)
    with RunDirectory.open(tmp_path / "a" / "run", config) as run:
        assert not run.resumed and run.config() == config
    with RunDirectory.open(tmp_path / "a" / "run", config) as run:
        assert run.resumed


def test_other_settings_are_all_named(tmp_path):
    with RunDirectory.open(tmp_path / "run", Config()) as run:
        run.append_metrics({"iteration": 1})
    other = replace(Config(), seed=1, outer=replace(Config().outer, meta_batch=9))
    with pytest.raises(RunError) as caught:
        RunDirectory.open(tmp_path / "run", other)
    for part in ("--seed is 1, was 0", "--outer.meta-batch is 9, was 4", "choose another --run-dir"):
        assert part in str(caught.value)
    assert RunDirectory(tmp_path / "run").config() == Config()
    RunDirectory.open(tmp_path / "run", Config()).close()  # the refusal let go of the lock


def test_what_was_refused_before_its_first_step_is_begun_with_better_settings(tmp_path):
    RunDirectory.open(tmp_path / "run", Config()).close()
    better = replace(Config(), outer=replace(Config().outer, meta_batch=9))
    RunDirectory(tmp_path / "run").require_usable(better)
    with RunDirectory.open(tmp_path / "run", better) as run:
        assert not run.resumed and run.config() == better
        run.write_chunks(1, 1)  # the first thing that a training leaves
    with pytest.raises(RunError, match=r"--outer\.meta-batch is 4, was 9"):
        RunDirectory.open(tmp_path / "run", Config())


def test_a_configuration_of_somebody_s_own_is_not_overwritten(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("# my notes\nseed: 3\n")
    for config in (Config.from_yaml(file), replace(Config(), seed=5)):
        with pytest.raises(RunError, match="is a configuration, not one that a run has left"):
            RunDirectory.open(tmp_path, config)
    assert file.read_text() == "# my notes\nseed: 3\n"


def test_settings_without_influence_on_the_weights_may_change(tmp_path):
    RunDirectory.open(tmp_path / "run", Config()).close()
    free = replace(Config(), tracking=replace(Config().tracking, wandb="offline"))
    with RunDirectory.open(tmp_path / "run", free) as run:
        assert run.resumed and run.config() == free


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / ".thesis.tex.1.tmp").write_text("more")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RunError, match=r"is no run directory: it has no config\.yaml but"):
        RunDirectory.open(tmp_path, Config())
    assert sorted(os.listdir(tmp_path)) == before


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="can't write there"):
        RunDirectory.open(tmp_path / "run", Config())


def test_two_processes_can_not_share_a_run(tmp_path):
    script = (
        "import sys, time\n"
        "from metafilm.config.config import Config\n"
        "from metafilm.storage.run import RunDirectory\n"
        "run = RunDirectory.open(sys.argv[1], Config())\n"
        "print('open', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "open\n"
            with pytest.raises(RunError, match=f"in use by process {other.pid}"):
                RunDirectory.open(tmp_path / "run", Config())
        finally:
            other.kill()
    for _ in range(50):  # the system lets go of the lock as it buries the process
        try:
            RunDirectory.open(tmp_path / "run", Config()).close()
            return
        except RunError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its process")


@pytest.fixture
def run(tmp_path):
    with RunDirectory.open(tmp_path / "run", Config()) as run:
        yield run


def test_metrics_are_cut_back_to_the_checkpoint(run):
    for iteration in range(1, 6):
        run.append_metrics({"iteration": iteration, "loss": 1 / iteration})
    with run.metrics_file.open("a") as file:
        file.write('{"iteration": 6, "lo')  # torn by a kill
    assert [record["iteration"] for record in run.read_metrics()] == [1, 2, 3, 4, 5]
    run.truncate_metrics(3)
    run.append_metrics({"iteration": 4, "loss": 0.5})
    assert [record["iteration"] for record in run.read_metrics()] == [1, 2, 3, 4]
    assert run.read_metrics()[2]["loss"] == 1 / 3  # to the last bit
    run.truncate_metrics(None)
    assert run.read_metrics() == []


def test_metrics_reach_the_file_line_by_line(run):
    run.append_metrics({"iteration": 1})
    assert run.metrics_file.read_text() == '{"iteration": 1}\n'


def test_metrics_are_plain_json(run):
    run.append_metrics(
        {
            "iteration": 1,
            "loss": math.nan,
            "per_site": {"a": torch.tensor(2.0)},
            "steps": np.array([1.5, math.inf]),
        }
    )
    (line,) = run.metrics_file.read_text().splitlines()
    assert "NaN" not in line and "Infinity" not in line
    assert json.loads(line) == {"iteration": 1, "loss": None, "per_site": {"a": 2.0}, "steps": [1.5, None]}
    with pytest.raises(RunError, match="needs an iteration"):
        run.append_metrics({"loss": 1.0})


def test_metrics_that_a_full_disk_refuses_leave_the_run_free(run):
    class Full:
        def close(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run.append_metrics({"iteration": 1})
    run._metrics.close()
    run._metrics = Full()
    with pytest.raises(OSError, match="No space left") as caught:
        run.close()
    assert caught.value.filename == str(run.metrics_file)
    run.close()
    RunDirectory.open(run.path, Config()).close()


BAD_LINES = {
    "no object": b"[1, 2]",
    "no iteration": b'{"loss": 1.0}',
    "a word for it": b'{"iteration": "x"}',
    "NaN": b'{"iteration": 2, "loss": NaN}',
    "torn": b'{"iteration": 2, "lo',
    "bytes": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_of_metrics_is_dropped_and_named(run, kind):
    run.append_metrics({"iteration": 1})
    run.close()
    with run.metrics_file.open("ab") as file:
        file.write(BAD_LINES[kind] + b"\n" + b'{"iteration": 3, "loss": 1e400}\n')
    with pytest.warns(UserWarning, match=r"metrics\.jsonl, line 2: no metrics of an iteration, left out"):
        run.truncate_metrics(3)
    assert [record["iteration"] for record in run.read_metrics()] == [1, 3]


def test_the_choice_of_chunks_is_kept(run):
    assert run.read_chunks() is None
    run.write_chunks(4, 2)
    assert run.read_chunks() == (4, 2)
    for content in ("", "[]", '{"tasks": 4}', '{"tasks": 4, "queries": 0}', '{"tasks": true, "queries": 1}'):
        run.chunks_file.write_text(content)
        with pytest.raises(RunError, match=r"chunks\.json is damaged, expected .* delete it"):
            run.read_chunks()


def test_the_checkpoint_before_is_kept(run, state):
    for iteration in (3, 4, 5):
        run.save_checkpoint(state(iteration))
    assert run.load_checkpoint()["iteration"] == 5
    assert torch.load(run.previous_file, weights_only=True)["iteration"] == 4


def test_a_damaged_checkpoint_falls_back_on_the_one_before(run, state):
    for iteration in (3, 4):
        run.save_checkpoint(state(iteration))
    run.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes()[:400])
    message = r"checkpoint\.pt is damaged .*; going on from .*checkpoint\.previous\.pt \(iteration 3\)"
    with pytest.warns(UserWarning, match=message):
        assert run.load_checkpoint()["iteration"] == 3
    run.save_checkpoint(state(4))  # the damaged one does not take the whole one's place
    assert run.load_checkpoint()["iteration"] == 4
    assert torch.load(run.previous_file, weights_only=True)["iteration"] == 3
    run.checkpoint_file.unlink()
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is missing; going on from"):
        assert run.load_checkpoint()["iteration"] == 3
    run.checkpoint_file.write_bytes(b"")
    run.previous_file.write_bytes(b"")
    with pytest.raises(RunError, match=r"checkpoint\.pt is damaged .*previous\.pt is damaged .*delete both"):
        run.load_checkpoint()


def test_a_damaged_checkpoint_alone_is_named(run, state):
    run.save_checkpoint(state(7))
    run.checkpoint_file.write_bytes(run.checkpoint_file.read_bytes()[:40])
    with pytest.raises(RunError, match=r"checkpoint\.pt is damaged .*delete it to start the run anew"):
        run.load_checkpoint()


def test_results(run):
    assert run.read_results() is None
    run.write_results({"accuracy": 98.5, "ci95": math.nan})
    assert run.read_results() == {"accuracy": 98.5, "ci95": None}
