"""Related systems side by side: budgets, resuming, and what learn2learn's are next to plain arithmetic."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from metafilm.evaluation import interval
from scripts import compare
from scripts.comparing import frozen, ours, peers
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
    test_tasks=4,
    backbone={"name": "conv4", "width": 4},
    pretrain={"batch": 16, "classifier": "cosine"},
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


def run(folder, action: str, *words: str) -> None:
    common = ["--folder", str(folder), "--work", "tiny", "--threads", "1", "--split", "val"]
    assert compare.main([action, *common, "--out", str(folder / "out.json"), *words]) == 0


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
    rows = {row["system"]: row for row in json.loads((tmp_path / "out.json").read_text())}
    assert list(rows) == ["protonet", "metafilm", "logistic-regression", "nearest-centroid"]
    scores = {
        name: json.loads((tmp_path / "tiny" / "images" / f"{name}.json").read_text())["scores"]
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
    (again,) = compare.rows(compare.parsed(words[2:]))
    assert (again.work, again.budget, again.system) == ("tiny", "images", "metafilm")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cavia", "tadam", "cnaps", "fit"])
def test_each_method_trains_and_is_scored_in_a_budget_of_time(tmp_path, name) -> None:
    run(tmp_path, "score", "--budget", "time", "--system", name, "--seconds", "0.2")
    row = json.loads((tmp_path / "tiny" / "time" / f"{name}.json").read_text())
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
    for number in range(2):
        cut.step(number)
    each = cut.scores(validation, TINY.validation_tasks)
    cut.iteration, cut.best, cut.best_state = 2, sum(each) / 2, cut._weights()
    cut.curve.append((1.0, cut.best))
    cut.save(tmp_path / "cut.pt")
    again = peers.Training(TINY, name, source, 4)
    again.load(tmp_path / "cut.pt")
    again.run(tmp_path, validation, 2)
    for key, value in whole.peer.network.state_dict().items():
        assert torch.equal(again.peer.network.state_dict()[key], value), key
    assert [value for _, value in again.curve] == [value for _, value in whole.curve]
    assert again.best == whole.best


@pytest.mark.usefixtures("learn2learn")
def test_its_prototypes_are_squared_distances() -> None:
    training = peers.Training(TINY, "learn2learn-protonet", TINY.training(None), 4)
    (task,) = training.prepared(TINY.training(None).sampler.batch([3]))
    found = training.peer.logits(task, False)
    network = training.peer.network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
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
    with torch.autocast("cpu", torch.bfloat16):
        support, query = (network.features(x[0]).detach() for x in (task.support_images, task.query_images))
        weight, bias = (value.detach().clone().requires_grad_() for value in network.head.parameters())
        for _ in range(2):
            loss = F.cross_entropy(F.linear(support, weight, bias), task.support_labels[0])
            steps = torch.autograd.grad(loss, (weight, bias))
            weight, bias = (v - 0.1 * step for v, step in zip((weight, bias), steps, strict=True))
        expected = F.linear(query, weight, bias).float()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.slow
def test_peers_are_rows_too(tmp_path) -> None:
    run(tmp_path, "score", "--budget", "images", "--system", "learn2learn-maml", "learn2learn-protonet")
    row = json.loads((tmp_path / "tiny" / "images" / "learn2learn-maml.json").read_text())
    assert row["protocol"] == "transductive" and row["images"] == 33 * TINY.images_per_step
    assert replace(TINY, images=600).images_per_step == 18
