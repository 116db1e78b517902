"""Related systems side by side: budgets, resuming, and what learn2learn's are next to plain arithmetic."""

import json
import time
from dataclasses import replace
from itertools import count, islice

import pytest
import torch
from torch.nn import functional as F

from episodes.errors import EpisodesError
from episodes.sampling.prefetch import BaseSampler
from metafilm.config import Config
from metafilm.evaluation import interval
from metafilm.storage.run import RunDirectory
from metafilm.training.outer_gradient import Diverged
from scripts import compare
from scripts.comparing import frozen, ours, peers, plans, table
from scripts.comparing.works import WORKS, Work

TINY = Work(
    "tiny",
    "strokes",
    28,
    1,
    3,
    1,
    2,
    "affine",
    images=600,
    seconds=5.0,
    target=10.0,
    ladder=(0.25, 0.5),
    test_tasks=4,
    backbone={"name": "conv4", "width": 4},
    pretrain={"batch": 16, "classifier": "cosine"},
    many_ways=5,
    cell_pools=2,
    validation_tasks=2,
    meta_batch=2,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setitem(WORKS, "tiny", TINY)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def learn2learn() -> None:
    pytest.importorskip("learn2learn", exc_type=ImportError)


def run(folder, action: str, *words: str, ends: int = 0) -> None:
    common = ["--folder", str(folder), "--work", "tiny", "--threads", "1", "--split", "val"]
    assert compare.main([action, *common, "--out", str(folder / "out.json"), *words]) == ends


def written(folder) -> dict[str, dict]:
    return {row["system"]: row for row in json.loads((folder / "out.json").read_text())}


@pytest.mark.parametrize("name", ours.SYSTEMS)
@pytest.mark.parametrize("work", ["omniglot-20w1s", "miniimagenet-5w5s"])
def test_budgets_in_images_are_kept(work, name) -> None:
    """Whatever share goes into the classification stage."""
    work, system = WORKS[work], ours.SYSTEMS[name]
    before, after = ours.planned(work, system, "images", work.images, None)
    settled = ours.config(work, system, "one", before, after, 6)
    seen = before * settled.pretrain.batch if before else 0
    episodes = settled.episodes
    assert isinstance(episodes.ways, int) and isinstance(episodes.shots, int)
    shape = episodes.ways * (episodes.shots + episodes.queries)
    seen += after * (settled.outer.meta_batch * shape + settled.outer.plain)
    assert abs(seen - work.images) <= settled.pretrain.batch + settled.outer.meta_batch * shape
    assert bool(before) == bool(system.pretrained)


def test_omniglot_is_that_of_the_field() -> None:
    """Turned characters are classes of their own, in training and in the test (Vinyals et al. 2016)."""
    settled = ours.config(WORKS["omniglot-20w1s"], ours.SYSTEMS["protonet"], "one", 0, 10, 2)
    assert settled.data.rotated_classes and settled.data.image_size == 28


def test_inner_steps_are_as_large_as_published() -> None:
    """cbfinn/maml's loss is a sum over the support divided by the shots: ways times a mean."""
    assert WORKS["omniglot-20w1s"].maml_step == 2.0 and WORKS["miniimagenet-5w5s"].maml_step == 0.05
    for work in (WORKS["omniglot-20w1s"], WORKS["miniimagenet-5w5s"]):
        settled = ours.config(work, ours.SYSTEMS["maml"], "maml", 0, 10, 2)
        assert (settled.inner.step_size, settled.inner.adapts) == (work.maml_step, "all")
        assert settled.inner.steps == 5 and not (settled.encoder.enabled or settled.inner.first_order)
        fit = ours.config(work, ours.SYSTEMS["fit"], "fit", 10, 10, 2)
        assert fit.inner.view_augment == work.augment  # though it takes its steps in evaluation alone
        assert (fit.inner.optimiser, fit.inner.step_size) == ("adam", 0.0035)
        cavia = ours.config(work, ours.SYSTEMS["cavia"], "cavia", 0, 10, 2)
        assert (cavia.inner.steps, cavia.inner.step_size, cavia.inner.learn_step_size) == (2, 1.0, False)


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.parametrize("name", ["learn2learn-maml", "learn2learn-anil"])
def test_peers_take_the_works_inner_steps(name) -> None:
    peer = peers.SYSTEMS[name].make(replace(TINY, maml_step=0.7))
    assert isinstance(peer, peers.Adapting) and (peer.maml.lr, peer.steps) == (0.7, 5)


@pytest.mark.slow
def test_rows_are_made_once_and_compared_in_pairs(tmp_path, monkeypatch, capsys) -> None:
    systems = ["metafilm", "protonet", "logistic-regression", "nearest-centroid"]
    run(tmp_path, "score", "--budget", "images", "--system", *systems)
    monkeypatch.setattr(ours, "trained", None)  # called, it would fail
    run(tmp_path, "score", "--budget", "images", "--system", *systems)
    run(tmp_path, "list", "--budget", "images")
    listed = capsys.readouterr().out.splitlines()
    assert "tiny images metafilm scored" in listed and "tiny images cavia -" in listed
    run(tmp_path, "write")
    rows = written(tmp_path)
    assert list(rows) == ["protonet", "metafilm", "logistic-regression", "nearest-centroid"]
    scores = {
        name: json.loads((tmp_path / "tiny" / "images" / f"{name}-val-4.json").read_text())["scores"]
        for name in systems
    }
    for name, row in rows.items():
        assert "scores" not in row and row["accuracy"] == pytest.approx(sum(scores[name]) / 4)
        assert 500 < row["images"] < 700 and row["training_seconds"] > 0
        if name != "metafilm":
            gains = [a - b for a, b in zip(scores["metafilm"], scores[name], strict=True)]
            assert row["metafilm_gain"] == pytest.approx(sum(gains) / 4)
            assert row["metafilm_gain_ci95"] == pytest.approx(interval(gains))
    assert rows["nearest-centroid"]["note"] == frozen.NOTES["nearest-centroid"]
    assert rows["protonet"]["minutes_to_target"] == rows["protonet"]["curve"][0][0] / 60
    words = rows["metafilm"]["command"].split()
    assert words[:2] == ["python", "scripts/compare.py"]
    again = compare.parsed(words[2:])
    assert list(map(str, compare.rows(again))) == ["tiny images metafilm"]
    assert (again.folder, again.split, again.images) == (tmp_path, "val", None)
    # other tasks are another scoring, of the same training: a file of its own, and no gain over four tasks
    monkeypatch.undo()
    monkeypatch.setitem(WORKS, "tiny", TINY)
    monkeypatch.setattr(ours, "planned", None)
    run(tmp_path, "score", "--budget", "images", "--system", "protonet", "--tasks", "3")
    run(tmp_path, "list", "--budget", "images", "--system", "protonet", "metafilm", "--tasks", "3")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "tiny images protonet scored",
        "tiny images metafilm begun",
    ]
    run(tmp_path, "write", "--system", "protonet", "--tasks", "3")
    fewer = written(tmp_path)
    assert fewer["protonet"]["episodes"] == 3 and "metafilm_gain" not in fewer["protonet"]
    assert fewer["nearest-centroid"] == rows["nearest-centroid"]
    run(tmp_path, "write", "--system", "protonet")
    assert written(tmp_path) == rows


def record(system: str, scores: list[float], **others) -> dict:
    made = {"work": "tiny", "budget": "images", "system": system, "split": "test", "seed": 0, "queries": 15}
    made |= {"episodes": len(scores), "accuracy": sum(scores) / len(scores), "scores": scores}
    return made | others


def test_gains_stay_and_are_of_equal_tasks_alone() -> None:
    order = [("tiny", "images", name) for name in ("protonet", "tadam", "metafilm")]
    whole = [
        record("metafilm", [90.0, 80.0]),
        record("protonet", [70.0, 80.0]),
        record("tadam", [60.0, 60.0]),
    ]

    def gains(before, scored, *asked: str) -> dict[str, float | None]:
        found = table.merged(before, scored, [("tiny", "images", name) for name in asked], order)
        assert all("scores" not in one for one in found)
        return {one["system"]: one.get("metafilm_gain") for one in found}

    all_three = table.merged([], whole, order, order)
    assert gains([], whole, *(name for *_, name in order)) == {"protonet": 10, "tadam": 25, "metafilm": None}
    # one row alone is paired with the scores in the folder, or keeps its gain; so do the others
    assert gains([], whole, "protonet") == {"protonet": 10}
    assert gains(all_three, whole[1:2], "protonet") == {"protonet": 10, "tadam": 25, "metafilm": None}
    assert gains(all_three, [], "protonet") == {"protonet": 10, "tadam": 25, "metafilm": None}
    # trained anew, it has not the gain of before
    anew = [record("protonet", [71.0, 80.0])]
    assert gains(all_three, anew, "protonet") == {"protonet": None, "tadam": 25, "metafilm": None}
    anew = [record("metafilm", [92.0, 80.0])]
    assert gains(all_three, anew, "metafilm") == {"protonet": None, "tadam": None, "metafilm": None}
    # nor a gain over tasks of another split or seed
    for other in ({"split": "val"}, {"seed": 1}):
        assert "metafilm_gain" not in table.merged([], [whole[0], whole[1] | other], order, order)[0]


def test_a_training_that_missed_its_seconds_says_so() -> None:
    found = table.missed(100.0, 125.0)
    assert found == {"planned_seconds": 100.0, "seconds_missed_by": pytest.approx(25)}
    row = record("metafilm", [90.0, 80.0], ci95=1.0, images=1, training_seconds=125.0, minutes_to_target=None)
    assert "| 2.1 (+25 % of its budget) |" in table.markdown([row | found])
    near = row | {"training_seconds": 109.0} | table.missed(100.0, 109.0)
    assert "| 1.8 |" in table.markdown([near]) and "tiny (val)" in table.markdown([near | {"split": "val"}])


def test_the_table_of_time_to_a_target_begins_with_the_fastest() -> None:
    shared = {"budget": "target", "split": "test", "target": 94.0, "images": 1200, "ci95": 0.5}
    shared |= {"tried_seconds": [75.0, 150.0]}
    slow = {"training_seconds": 60.0, "curve": [[30.0, 91.0], [60.0, 90.0]], "minutes_to_target": None}
    fast = {"training_seconds": 150.0, "curve": [[100.0, 95.0]], "minutes_to_target": 100 / 60}
    rows = [record("maml", [88.0, 90.0]) | shared | slow, record("metafilm", [94.0, 96.0]) | shared | fast]
    rows.append(record("cavia", [1.0, 2.0]) | shared | fast | {"budget": "time"})
    first, second = table.to_target(rows).splitlines()[2:]
    assert first == "| tiny, 94 % | metafilm | **1.7** | 75, 150 | 1,200 | 95.00 ± 0.50 |"
    assert "| maml | not in 1 (91.0 %) | 75, 150 |" in second


def test_a_row_that_fails_or_is_in_use_stops_no_other(tmp_path, monkeypatch, capsys) -> None:
    def trained(work, name, *_):
        if name == "cavia":
            raise Diverged("the outer loss is nan")
        if name == "tadam":
            raise EpisodesError("no such data set")
        return {"curve": [(1.0, 50.0)], "training_seconds": 1.0, "images": 1, "note": name}

    monkeypatch.setattr(ours, "trained", trained)
    monkeypatch.setattr(ours, "scores", lambda folder, source, tasks: [50.0] * tasks)
    (tmp_path / "tiny" / "images" / "cnaps").mkdir(parents=True)
    names = ["protonet", "cavia", "tadam", "cnaps", "metafilm"]
    with RunDirectory(tmp_path / "tiny" / "images" / "cnaps") as other:
        other.lock()  # as another process does
        run(tmp_path, "score", "--budget", "images", "--system", *names, ends=1)
    shown = capsys.readouterr().out
    assert "tiny images cavia: failed: the outer loss is nan" in shown and "in use by process" in shown
    assert "3 of 5 rows failed: tiny images cavia, tiny images tadam, tiny images cnaps" in shown
    run(tmp_path, "write")
    assert list(written(tmp_path)) == ["protonet", "metafilm"]


def test_a_row_keeps_the_budget_it_was_begun_with(tmp_path, monkeypatch, capsys) -> None:
    begun = []

    def trained(work, name, budget, amount, folder, *_):
        begun.append(plans.kept(folder, amount, lambda: (0, 7)))
        return {"curve": [(1.0, 50.0)], "training_seconds": 1.0, "images": 1, "note": name}

    monkeypatch.setattr(ours, "trained", trained)
    monkeypatch.setattr(ours, "scores", lambda folder, source, tasks: [50.0] * tasks)
    words = ["score", "--budget", "images", "--system", "protonet", "--tasks"]
    run(tmp_path, *words, "2", "--images", "90")
    run(tmp_path, *words, "3")
    assert begun == [plans.Plan(90, (0, 7))] * 2
    row = json.loads((tmp_path / "tiny" / "images" / "protonet-val-3.json").read_text())
    again = compare.parsed(row["command"].split()[2:])
    assert (again.images, again.tasks, again.folder) == (90, 3, tmp_path)
    run(tmp_path, *words, "3", "--images", "100", ends=1)
    assert "was begun with a budget of 90, not 100; leave --images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("budget", "amount"), [("images", 1_234_567), ("time", 1234.5678901), ("target", 0.1)]
)
def test_a_records_command_has_the_budget_to_the_last_digit(tmp_path, budget, amount) -> None:
    row = compare.Row("tiny", budget, "protonet")
    asked = ["score", "--folder", str(tmp_path)]
    asked += ["--seconds", repr(amount)] if budget == "target" else []
    words = compare.command(row, compare.parsed(asked), float(amount)).split()
    again = compare.parsed(words[2:])
    assert (again.images if budget == "images" else again.seconds) == amount


def test_what_an_older_version_left_is_said(tmp_path, capsys) -> None:
    """A plan of steps alone, and scores without split and number of tasks."""
    place = tmp_path / "tiny" / "images" / "protonet"
    place.mkdir(parents=True)
    (place / "plan.json").write_text("[0, 7]")
    place.with_name("protonet.json").write_text("{}")
    place.with_name("cavia.json").write_text("{}")
    words = ["--budget", "images", "--system", "protonet", "cavia", "tadam"]
    run(tmp_path, "list", *words)
    protonet, cavia, tadam = capsys.readouterr().out.splitlines()
    assert f"can't go on: {place / 'plan.json'} is of an older version" in protonet
    assert (
        f"delete {place} to" in protonet and "protonet.json is of an older version, and not read" in protonet
    )
    assert cavia.startswith("tiny images cavia -; ") and "cavia.json is of an older version" in cavia
    assert tadam == "tiny images tadam -"
    run(tmp_path, "score", "--budget", "images", "--system", "protonet", ends=1)
    assert "plan.json is of an older version" in capsys.readouterr().out
    (place / "plan.json").write_text("{")
    run(tmp_path, "list", *words)
    assert f"can't go on: {place / 'plan.json'} is damaged" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_of_other_settings_is_no_result(tmp_path, monkeypatch, capsys) -> None:
    run(tmp_path, "score", "--budget", "images", "--system", "protonet")
    other = replace(ours.SYSTEMS["protonet"], settings=ours.SYSTEMS["tadam"].settings)
    monkeypatch.setitem(ours.SYSTEMS, "protonet", other)
    run(tmp_path, "score", "--budget", "images", "--system", "protonet", "--tasks", "3", ends=1)
    assert "holds a run with other settings" in capsys.readouterr().out


def test_networks_with_fewer_poolings_are_those_of_their_systems() -> None:
    def backbone(work: str, name: str) -> tuple[object, ...]:
        found = ours.config(WORKS[work], ours.SYSTEMS[name], name, 10, 10, 2).backbone
        return found.pools, found.pooling, found.last_relu

    assert backbone("omniglot-20w1s", "metafilm-cells") == (2, None, True)
    assert backbone("miniimagenet-5w5s", "metafilm-cells") == (3, None, True)
    assert backbone("miniimagenet-5w5s", "metafilm-mean") == (3, "mean", False)
    assert backbone("miniimagenet-5w5s", "metafilm-plain") == (4, None, True)


@pytest.mark.slow
def test_minutes_to_a_target_begin_with_the_first_step_of_the_classification_stage(tmp_path) -> None:
    run(tmp_path, "score", "--budget", "target", "--system", "metafilm", "--seconds", "1")
    row = json.loads((tmp_path / "tiny" / "target" / "metafilm-val-4.json").read_text())
    assert row["iterations"][0] > 0
    assert row["planned_seconds"] == 1.0
    assert row["seconds_missed_by"] == pytest.approx(100 * (row["training_seconds"] - 1))
    first = row["curve"][0][0]
    assert 0.3 * row["training_seconds"] < first < 0.9 * row["training_seconds"], "0.6 of it, about"


@pytest.mark.slow
@pytest.mark.parametrize(("target", "tried"), [(1.0, [0.25]), (101.0, [0.25, 0.5])])
def test_time_to_a_target_is_of_the_shortest_training_that_reaches_it(
    tmp_path, monkeypatch, target, tried
) -> None:
    monkeypatch.setitem(WORKS, "tiny", replace(TINY, target=target))
    run(tmp_path, "list", "--budget", "target", "--system", "metafilm-wide")
    run(tmp_path, "score", "--budget", "target", "--system", "metafilm-wide")
    row = json.loads((tmp_path / "tiny" / "target" / "metafilm-wide-val-4.json").read_text())
    assert row["tried_seconds"] == tried and row["planned_seconds"] == tried[-1]
    assert (row["minutes_to_target"] is not None) == (target < 100)
    trained = tmp_path / "tiny" / "target" / "metafilm-wide"
    assert {one.name for one in trained.iterdir() if one.is_dir()} == {f"{seconds:g}" for seconds in tried}
    assert "--seconds" not in row["command"] and row["ways"] == TINY.ways
    config = Config.from_yaml(trained / f"{tried[-1]:g}" / "run" / "config.yaml")
    assert (config.episodes.ways, config.evaluation.ways, config.outer.meta_batch) == (5, 3, 1)
    assert row["images"] == row["iterations"][1] * 5 * (TINY.shots + TINY.queries)


def test_seconds_of_a_step_are_those_with_episodes_built_ahead() -> None:
    """What is slower, building or learning, decides; in line it would be their sum."""
    learned = []

    class Slow(BaseSampler):
        def shapes(self, indices):
            return [0] * len(indices)

        def batch(self, indices):
            time.sleep(0.02)
            return indices[0]

    def step(batch) -> None:
        learned.append(batch)
        time.sleep(0.02)

    seconds = plans.mean_seconds(step, Slow().prefetch([i] for i in count()))
    assert learned == [[i] for i in range(plans.FIRST + plans.PROBE)] and 0.019 < seconds < 0.035


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cavia", "maml", "tadam", "cnaps", "fit"])
def test_each_method_trains_and_is_scored_in_a_budget_of_time(tmp_path, name) -> None:
    run(tmp_path, "score", "--budget", "time", "--system", name, "--seconds", "0.2")
    row = json.loads((tmp_path / "tiny" / "time" / f"{name}-val-4.json").read_text())
    before, after = row["iterations"]
    assert after >= 1 and (before > 0) == bool(ours.SYSTEMS[name].pretrained)
    assert len(row["scores"]) == 4 and row["note"] == ours.SYSTEMS[name].note


def test_time_to_a_target_leaves_validations_out() -> None:
    curve = ours.curve_of(
        [
            {"iteration": 1, "seconds": 5.0},
            {"iteration": 2, "seconds": 60.0, "validation_accuracy": 50.0, "validation_seconds": 12.0},
            {"iteration": 4, "seconds": 120.0, "validation_accuracy": 70.0, "validation_seconds": 10.0},
        ]
    )
    assert curve == [(48.0, 50.0), (98.0, 70.0)]
    assert compare.minutes_to(60.0, curve) == 98 / 60 and compare.minutes_to(71.0, curve) is None


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.parametrize("name", peers.SYSTEMS)
def test_a_peer_cut_and_resumed_is_the_same(tmp_path, name) -> None:
    source, validation = TINY.training(None), TINY.evaluation("val", None)
    whole = peers.Training(TINY, name, source, 4)
    whole.run(tmp_path, validation, 2)
    cut = peers.Training(TINY, name, source, 4)
    for episodes in islice(cut.ahead(), 2):
        cut.step(episodes)
    cut.validate(validation)
    cut.save(tmp_path / "cut.pt")
    again = peers.Training(TINY, name, source, 4)
    again.load(tmp_path / "cut.pt")
    again.run(tmp_path, validation, 2)
    for key, value in whole.peer.network.state_dict().items():
        assert torch.equal(again.peer.network.state_dict()[key], value), key
    assert [value for _, value in again.curve] == [value for _, value in whole.curve]
    assert again.best == whole.best
    for name, value in whole.average.state().items():
        assert torch.equal(again.average.state()[name], value), name


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.parametrize("name", ["learn2learn-protonet", "learn2learn-maml"])
def test_peers_are_judged_as_metafilm_is(name, tmp_path) -> None:
    """The moving average of their weights, in float32."""
    training = peers.Training(TINY, name, TINY.training(None), 8)
    training.run(tmp_path, TINY.evaluation("val", None), 1)
    averaged = training.average.state()
    assert training.average.decay == 0.999
    for key, value in training.peer.network.state_dict().items():
        assert torch.equal(training.best_state[key], averaged[key]), key
        assert key.endswith("tracked") or not torch.equal(averaged[key], value), key
    (task,) = training.prepared(TINY.training(None).sampler.batch([0]))
    found = training.peer.logits(task, False)
    training.peer.network.double()
    task = replace(task, support_images=task.support_images.double(), query_images=task.query_images.double())
    exact = training.peer.logits(task, False).double()
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("learn2learn")
def test_a_peer_whose_loss_is_not_finite_has_diverged() -> None:
    training = peers.Training(TINY, "learn2learn-protonet", TINY.training(None), 4)
    with torch.no_grad():
        next(training.peer.network.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match="the outer loss is nan"):
        training.step(next(training.ahead()))


@pytest.mark.usefixtures("learn2learn")
def test_its_prototypes_are_squared_distances() -> None:
    training = peers.Training(TINY, "learn2learn-protonet", TINY.training(None), 4)
    (task,) = training.prepared(TINY.training(None).sampler.batch([3]))
    found = training.peer.logits(task, False)
    network = training.peer.network.eval()
    with torch.no_grad():
        features = network.features(torch.cat((task.support_images[0], task.query_images[0]))).float()
    for query in range(6):
        for way in range(3):
            own = features[:3][task.support_labels[0] == way].mean(0)
            expected = -(features[3 + query] - own).square().sum()
            torch.testing.assert_close(found[query, way], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("learn2learn")
def test_its_anil_is_gradient_steps_on_the_head() -> None:
    peer = peers.Adapting(TINY, True, 2, 0.1)
    training = peers.Training(TINY, "learn2learn-anil", TINY.training(None), 4)
    (task,) = training.prepared(TINY.training(None).sampler.batch([0]))
    found = peer.logits(task, False)
    network = peer.network
    support, query = (network.features(x[0]).detach() for x in (task.support_images, task.query_images))
    weight, bias = (value.detach().clone().requires_grad_() for value in network.head.parameters())
    for _ in range(2):
        loss = F.cross_entropy(F.linear(support, weight, bias), task.support_labels[0])
        steps = torch.autograd.grad(loss, (weight, bias))
        weight, bias = (v - 0.1 * step for v, step in zip((weight, bias), steps, strict=True))
    expected = F.linear(query, weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.slow
def test_peers_are_rows_too(tmp_path) -> None:
    run(tmp_path, "score", "--budget", "images", "--system", "learn2learn-maml", "learn2learn-protonet")
    row = json.loads((tmp_path / "tiny" / "images" / "learn2learn-maml-val-4.json").read_text())
    assert row["protocol"] == "transductive" and row["images"] == 33 * TINY.images_per_step
    assert replace(TINY, images=600).images_per_step == 18
