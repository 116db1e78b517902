"""What the page is told: the same as Python is, before and after adaptation; bounded in all directions."""

import math

import pytest
import torch

from metafilm import MetaFiLM, Task
from metafilm.app import Desk, Refused
from metafilm.app.limits import MOST_CLASSES, MOST_EXAMPLES, MOST_SESSIONS
from metafilm.app.pictures import from_strokes

UP = [[[0.5, 0.2], [0.5, 0.8]]]
CROSS = [*UP, [[0.3, 0.5], [0.7, 0.5]]]
ZED = [[[0.2, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.8]]]


@pytest.fixture
def desk() -> Desk:
    return Desk(MetaFiLM.from_pretrained("omniglot-conv4"), "omniglot-conv4")


@pytest.fixture
def taught(desk):
    """A session with an example each of classes 4 and 7."""
    session = desk.sessions.new()
    for key, strokes in ((7, CROSS), (4, ZED)):
        desk.add(session, key, strokes)
    return session


def test_answers_are_those_of_the_learner(desk, taught):
    found = desk.answer(taught, CROSS)
    support = torch.stack([from_strokes(strokes, desk.look) for strokes in (CROSS, ZED)])
    task = desk.learner.adapt(support, [7, 4])
    query = from_strokes(CROSS, desk.look).unsqueeze(0)
    assert found["classes"] == [4, 7]
    torch.testing.assert_close(torch.tensor(found["after"]), task.predict_proba(query)[0])
    assert found["after"][1] > 0.9
    # before: distances to the prototypes in the shared network, all deviations 0
    features = desk.learner.embed(torch.cat((support, query)))
    logits = desk.learner.head.score(features[2:][None], features[[1, 0]][None])
    torch.testing.assert_close(torch.tensor(found["before"]), logits[0, 0].softmax(-1), rtol=1e-4, atol=1e-5)
    assert found["before"] != found["after"]


def test_what_is_none_of_the_classes_is_doubted(desk, taught):
    spiral = [[[0.5 + 0.04 * t * math.cos(t), 0.5 + 0.04 * t * math.sin(t)] for t in range(12)]]
    assert desk.answer(taught, CROSS)["known"] is True
    assert desk.answer(taught, [*spiral, *UP, [[0.2, 0.9], [0.8, 0.9]]])["known"] is False
    desk.learner.calibration = None
    assert desk.answer(taught, CROSS)["known"] is None


def test_what_adaptation_did(desk, taught):
    found = desk.adaptation(taught)
    assert found["gate"] is None and found["examples"] == 2 and len(found["sites"]) == 4
    film = desk.adapt(taught).after.film
    first = found["sites"][0]
    assert len(first["gain"]) == len(first["bias"]) == 64
    name = next(name for name in film if name.endswith("delta_gamma"))
    torch.testing.assert_close(torch.tensor(first["gain"]), film[name], rtol=0, atol=1e-4)


def test_a_new_example_counts_at_once_and_nothing_is_computed_twice(desk, taught):
    first = desk.adapt(taught)
    assert desk.adapt(taught) is first
    added = desk.add(taught, 1, UP)
    assert added["picture"].startswith("data:image/png;base64,")
    assert desk.answer(taught, UP)["classes"] == [1, 4, 7]
    taught.forget([added["example"], 999])
    assert desk.answer(taught, UP)["classes"] == [4, 7]


def test_what_changes_while_it_computes_is_not_what_was_adapted_to(desk, taught, monkeypatch):
    """Another drawing of the same class in the place of one."""
    adapt = desk.learner.adapt

    def meanwhile(*given, **more):
        task = adapt(*given, **more)
        taught.forget([2])
        taught.add(4, from_strokes(UP, desk.look))
        return task

    monkeypatch.setattr(desk.learner, "adapt", meanwhile)
    desk.adapt(taught)
    assert taught.adapted is None
    monkeypatch.setattr(desk.learner, "adapt", adapt)
    assert desk.answer(taught, UP)["after"][0] > 0.9


def test_the_task_goes_away_with_its_names(desk, taught, tmp_path):
    (tmp_path / "task.safetensors").write_bytes(desk.task_file(taught, {"4": "zed", "7": " cross "}))
    task = Task.load(tmp_path / "task.safetensors")
    assert task.classes == ["zed", "cross"]
    query = from_strokes(CROSS, desk.look).unsqueeze(0)
    assert task.predict(query) == ["cross"]
    # and with what its weights were calibrated for
    shown = torch.tensor(desk.answer(taught, CROSS)["after"])
    assert task.shots == [1, 1] and task.temperature != 1
    torch.testing.assert_close(task.predict_proba(query)[0], shown)
    for names in ({"4": "a", "7": "a"}, {"4": "a"}, {"4": "", "7": "b"}, {"4": "x" * 61, "7": "b"}, None, 3):
        with pytest.raises(Refused):
            desk.task_file(taught, names)


def test_limits(desk):
    session = desk.sessions.new()
    with pytest.raises(Refused, match="at least two classes"):
        desk.answer(session, CROSS)
    picture = from_strokes(CROSS, desk.look)
    for _ in range(MOST_EXAMPLES):
        session.add(0, picture)
    with pytest.raises(Refused, match=f"{MOST_EXAMPLES} examples at most"):
        session.add(0, picture)
    for key in range(1, MOST_CLASSES):
        session.add(key, picture)
    with pytest.raises(Refused, match=f"{MOST_CLASSES} classes at most"):
        session.add(MOST_CLASSES, picture)
    for _ in range(2 * MOST_SESSIONS):
        last = desk.sessions.new()
    assert len(desk.sessions) == MOST_SESSIONS and desk.sessions.get(last.token) is last
    with pytest.raises(Refused, match="idle too long") as said:
        desk.sessions.get(session.token)
    assert said.value.status == 410


def test_what_is_taken_is_said(desk):
    about = desk.about()
    assert about["encoder"] is True and about["steps"] == desk.learner.evaluation_steps > 0
    desk.learner.stage = "encoder"
    try:
        assert desk.about()["encoder"] is True and desk.about()["steps"] == 0
        desk.learner.stage = "identity"
        assert desk.about()["encoder"] is False and desk.about()["steps"] == 0
    finally:
        desk.learner.stage = None


def test_the_gate_is_heard(make_learner):
    learner = make_learner(
        dtype=torch.float32,
        inner={"steps": 1, "gate": True},
        encoder={"enabled": False},
        head={"name": "cosine"},
    ).eval()
    desk = Desk(learner, "gated")
    session = desk.sessions.new()
    for key, strokes in ((0, CROSS), (1, ZED), (0, CROSS), (1, ZED)):
        desk.add(session, key, strokes)
    found = desk.adaptation(session)["gate"]
    assert found["chosen"] in ("identity", "step 1") and found["why"]
    assert desk.about()["gate"] is True
