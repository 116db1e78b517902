"""Two processes against one; a process that dies. They talk over the loopback interface alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from metafilm.engine import distributed
from metafilm.errors import MetafilmError
from metafilm.learner.build import load_learner
from metafilm.storage.run import RunDirectory

HERE = Path(__file__).parent
SETTINGS = (
    "--data.name strokes --data.image_size 16 --episodes.ways 3 --backbone.width 4 --encoder.width 6 "
    "--outer.meta_batch 4 --outer.task_chunk 1 --evaluation.episodes 4 --outer.auxiliary 0 "
    "--pretrain.iterations 4 --pretrain.batch 16"
).split()

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo over loopback is not set up there")


def environment() -> dict[str, str]:
    names = [name for _, name in socket.if_nameindex()]
    loopback = next(name for name in ("lo", "lo0") if name in names)
    root = HERE.parent.parent
    return os.environ | {
        "GLOO_SOCKET_IFNAME": loopback,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def torchrun(*words: object, processes: int = 2) -> list[str]:
    port = f"--master-port={free_port()}"
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", port]
    return [*start, *map(str, words)]


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, **options)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path) -> None:
    """Parameters, averages, running statistics, reports and evaluation, in float64."""
    script = HERE / "distributed_steps.py"
    one = run([sys.executable, str(script), str(tmp_path / "one.pt")])
    two = run(torchrun(script, tmp_path / "two.pt"))
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    expected, found = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(tmp_path) -> None:
    """The command line, float32 to rounding: same weights, one run directory."""
    words = ["train", "demo", *SETTINGS, "--outer.iterations", "6", "--evaluation.every", "3"]
    one = run([sys.executable, "-m", "metafilm", *words, "--run_dir", str(tmp_path / "one")])
    two = run(torchrun("-m", "metafilm", *words, "--run_dir", tmp_path / "two"))
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("training demo") == 1 and "with 2 processes" in two.stdout
    expected = load_learner(tmp_path / "one").state_dict()
    for name, value in load_learner(tmp_path / "two").state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5, msg=name)
    records = [RunDirectory(tmp_path / name).read_metrics() for name in ("one", "two")]
    assert [r["iteration"] for r in records[1]] == [r["iteration"] for r in records[0]]
    for first, second in zip(*records, strict=True):
        name = "loss" if first["iteration"] > 0 else "pretrain_loss"
        assert second[name] == pytest.approx(first[name], rel=1e-3)
    assert records[1][-1]["validation_accuracy"] == pytest.approx(records[0][-1]["validation_accuracy"])
    assert RunDirectory(tmp_path / "two").read_results()["processes"] == 2


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers through /proc")
@pytest.mark.parametrize("stage", ["pretrain", "outer"])
def test_a_killed_worker_ends_the_run_with_a_checkpoint(tmp_path, stage) -> None:
    path = tmp_path / "run"
    words = ["train", "demo", *SETTINGS, "--evaluation.every", "100000", f"--{stage}.iterations", "100000"]
    command = torchrun("-m", "metafilm", *words, "--run_dir", path)
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            deadline = time.monotonic() + 120
            begun = 1 if stage == "outer" else -100000
            while not any(
                record["iteration"] >= begun
                for record in (RunDirectory(path).read_metrics() if path.is_dir() else [])
            ):
                assert time.monotonic() < deadline and started.poll() is None
                time.sleep(0.2)
            workers = {
                pid: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children(started.pid)
            }
            second = next(pid for pid, variables in workers.items() if b"RANK=1" in variables)
            os.kill(second, signal.SIGKILL)
            _, errors = started.communicate(timeout=120)
        finally:
            started.kill()
    assert started.returncode != 0
    assert "another process of this run has died" in errors or "interrupted; iteration" in errors, errors
    state = RunDirectory(path).load_checkpoint()
    assert state is not None and state["iteration"] >= begun and ("classifier" in state) == (stage != "outer")


def test_alone() -> None:
    group = distributed.Group()
    value = torch.ones(3)
    assert group.leads and group.share(range(5)) == [0, 1, 2, 3, 4]
    assert torch.equal(group.sum(value), torch.ones(3)) and group.send(b"x") == b"x"
    parameter = torch.zeros(2, requires_grad=True)
    assert group.sum_gradients([parameter], [1.0]) == [1.0] and parameter.grad is None


def test_shares_are_disjoint_and_whole() -> None:
    shares = [distributed.Group(rank, 3).share(range(8)) for rank in range(3)]
    assert (
        sorted(number for share in shares for number in share) == list(range(8))
        and max(map(len, shares)) - min(map(len, shares)) <= 1
    )


def test_too_many_processes(make_learner) -> None:
    from metafilm.config.sources import Source
    from metafilm.training.outer_loop import OuterLoop

    learner = make_learner()
    with pytest.raises(MetafilmError, match="meta-batch of 2 can't be shared by 3 processes"):
        OuterLoop(learner, learner.config, Source(None, ()), distributed.Group(1, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(("backend", "learner_on"), [("nccl", "cpu"), ("nccl", "cuda"), ("gloo", "cuda")])
def test_what_is_summed_may_lie_elsewhere(monkeypatch, backend, learner_on) -> None:
    """Pretended GPUs: NCCL sums there alone, also for a run that was told --device cpu."""
    sent = []
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: backend)
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda values: sent.append(values.device.type))
    with FakeTensorMode():
        values = torch.ones(3, device=learner_on)
        assert distributed.Group(0, 2).sum(values) is values
    assert sent == ["cuda" if backend == "nccl" else "cpu"]
