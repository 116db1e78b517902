"""Questions about pictures: the smallest setting learns, resumes exactly, and its records are whole."""

import os
import signal
from dataclasses import replace

import pytest
import torch
import yaml
from torch.nn import functional as F

from episodes.datasets import sort_of_clevr
from episodes.datasets.scenes.sort_of_clevr import SENTENCES
from metafilm.errors import ConfigError, MetafilmError, RunError
from scripts.conditioning import running
from scripts.conditioning import visual_questions as script
from scripts.conditioning.mac import MAC
from scripts.conditioning.visual_questions import Answerer, Examples, Settings, right

SMALL = Settings(scenes=40, width=16, blocks=2, sites=(0, 1), state=16, pictures=8, iterations=30, warmup=5)
ARMS = yaml.safe_load(script.SYSTEM.config.read_text())["arms"]


@pytest.fixture(scope="module")
def data() -> Examples:
    return Examples.of(sort_of_clevr.split("train", 40))


def trained(settings, data, folder, stop=None, kill=None, save_seconds=60.0):
    """The trained model and the losses of its steps. stop: Ctrl-C in that step; kill: die in that step."""
    torch.manual_seed(settings.seed)
    model, losses = Answerer(settings), []

    def loss(step):
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)
        if step == kill:
            raise KeyboardInterrupt
        pictures, rows, answers = data.batch(step, settings.pictures, settings.seed)
        value = F.cross_entropy(model(pictures, rows), answers.flatten())
        losses.append(value.item())
        return value

    running.train(model, loss, settings, folder, save_seconds=save_seconds)
    return model, losses


def small(arm) -> Settings:
    """The arm, small."""
    settings = running.settings_of(script.SYSTEM.config, SMALL, arm)
    sites = settings.sites if settings.model == "film" and len(settings.sites) < 2 else (0, 1)
    return replace(settings, scenes=40, width=16, pictures=8, iterations=30, learning_rate=3e-3, sites=sites)


@pytest.mark.parametrize("arm", ["film-4", "film-1-early", "film-4-gru", "mac"])
def test_its_loss_falls(arm, data, tmp_path) -> None:
    _, losses = trained(small(arm), data, tmp_path)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_answers_by_the_question(arm, data) -> None:
    torch.manual_seed(0)
    model = Answerer(small(arm)).eval()
    if arm != "mac" and arm != "none":
        torch.nn.init.normal_(model.reader.condition.multiplier)
    logits = model(data.pictures[:1], torch.tensor([[0, 35]]))
    assert ((logits[0] - logits[1]).abs().max() > 1e-4) == (arm != "none")


@pytest.mark.parametrize("model", ["film", "mac"])
def test_resumed_is_uninterrupted(model, data, tmp_path) -> None:
    settings = replace(SMALL, model=model, iterations=12, average=0.99, clip=1.0)
    expected, losses = trained(settings, data, tmp_path / "whole")
    with pytest.raises(SystemExit, match="stopped after step 4; the same command goes on"):
        trained(settings, data, tmp_path / "parts", stop=3)
    with pytest.raises(KeyboardInterrupt):
        trained(settings, data, tmp_path / "parts", kill=8, save_seconds=0.0)
    found, rest = trained(settings, data, tmp_path / "parts")
    assert rest == losses[8:]
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name
    assert os.listdir(tmp_path / "parts") == ["checkpoint.pt"]
    again, none = trained(settings, data, tmp_path / "parts")
    assert not none and torch.equal(again.stem.layers[0].weight, expected.stem.layers[0].weight)
    with pytest.raises(RunError, match="holds a training with other settings"):
        trained(replace(settings, decay=0.1), data, tmp_path / "parts")


def test_a_question_is_read_once_and_asked_of_many(data) -> None:
    """Pictures by 20 questions at once, against one picture and one question at a time."""
    for model in ("film", "mac"):
        torch.manual_seed(0)
        answerer = Answerer(replace(SMALL, model=model)).eval()
        if model == "film":
            torch.nn.init.normal_(answerer.reader.condition.multiplier)
        pictures, rows = data.pictures[:3], data.rows[:3]
        with torch.no_grad():
            together = answerer(pictures, rows).view(3, 20, 10)
            for i in range(3):
                for j in (0, 7, 19):
                    alone = answerer(pictures[i : i + 1], rows[i : i + 1, j : j + 1])
                    torch.testing.assert_close(alone[0], together[i, j], rtol=1e-4, atol=1e-5)
        assert (together[0] - together[0, 0]).abs().max() > 1e-3


def test_the_examples_are_the_scenes() -> None:
    scenes = sort_of_clevr.split("val", 5)
    examples = Examples.of(scenes)
    assert torch.equal(
        torch.from_numpy(SENTENCES).flatten(0, 2)[examples.rows], torch.from_numpy(scenes.words())
    )
    epoch = [examples.batch(step, 2, 0)[2] for step in range(2)]
    assert len(torch.unique(torch.cat(epoch), dim=0)) == 4
    assert not torch.equal(torch.cat(epoch), torch.cat([examples.batch(step, 2, 0)[2] for step in (2, 3)]))
    answered = torch.zeros(2, 20, dtype=torch.bool)
    answered[0, :10] = answered[1, 10:15] = True
    found = script.accuracy(answered)
    assert found["non-relational"]["value"] == 50 and found["relational"]["value"] == 25


def test_mac_against_its_formulas() -> None:
    """One picture and question, step by step, with the concatenations written out."""
    torch.manual_seed(0)
    mac = MAC(30, 6, 10, 8, 3).double().eval()
    maps, words = torch.randn(1, 6, 2, 3, dtype=torch.float64), torch.tensor([[3, 9, 4, 0]])
    lstm = torch.nn.LSTM(64, 4, batch_first=True, bidirectional=True).double()
    both = {**mac.ahead.state_dict(), **{f"{k}_reverse": v for k, v in mac.back.state_dict().items()}}
    lstm.load_state_dict(both)
    states, (last, _) = lstm(mac.embedding(words[:, :3]))
    question = torch.cat((last[0], last[1]), 1)
    known = torch.stack([F.elu(mac.cells(maps[0, :, y, x])) for y in range(2) for x in range(3)])
    joint = torch.cat((mac.of_product.weight, mac.of_cell_alone.weight), 1)
    memory = mac.first
    for step in mac.ask_step:
        asked = step(torch.tanh(mac.ask(question)))
        weights = torch.stack([mac.weigh_words(asked[0] * word)[0] for word in states[0]]).softmax(0)
        control = weights @ states[0]
        scores = []
        for cell in known:
            product = mac.of_memory(memory) * mac.of_cells(cell)
            inter = F.elu(joint @ torch.cat((product, mac.of_cells(cell))) + mac.of_cell_alone.bias)
            scores.append(mac.weigh_cells(F.elu(mac.read(inter) * control))[0])
        memory = mac.write(torch.cat((memory, torch.stack(scores).softmax(0) @ known)))
    expected = mac.answer(torch.cat((memory, mac.of_question(question)[0])))
    torch.testing.assert_close(mac(maps, words, torch.tensor([[0]]))[0], expected)


def test_a_run_and_its_records(through, monkeypatch) -> None:
    real = sort_of_clevr.split
    monkeypatch.setattr(sort_of_clevr, "split", lambda name, n=None, **kw: real(name, n or 20, **kw))
    changes = ["scenes=20", "iterations=2", "width=8", "state=8", "decay=1e-3"]
    records, _ = through(script, ["non-relational", "relational"], "film-4", changes)
    for one in records:
        assert one["setting"]["decay"] == 1e-3 and -100 <= one["gap"] <= 100


def test_the_gap_is_training_less_validation(monkeypatch, tmp_path) -> None:
    real = sort_of_clevr.split
    monkeypatch.setattr(sort_of_clevr, "split", lambda name, n=None, **kw: real(name, 8, **kw))
    model = script.make(SMALL)
    found = script.score(model, SMALL, "val", "a test", tmp_path)
    for metric in ("non-relational", "relational"):
        mine = (script.accuracy(right(model, Examples.of(real(name, 8)))) for name in ("train", "val"))
        train, val = (one[metric]["value"] for one in mine)
        assert found[metric]["value"] == val and found[metric]["gap"] == train - val
    assert "gap" not in script.score(model, SMALL, "test", "a test", tmp_path)["relational"]


def test_errors(tmp_path) -> None:
    for arm, change, message in (
        ("x", [], "has no arm 'x'; its arms: film-4"),
        ("mac", ["witdh=3"], "unknown setting 'witdh'"),
        ("mac", ["width=wide"], "width is 'wide', expected a int like 128"),
        ("mac", ["width"], "say name=value"),
    ):
        with pytest.raises(ConfigError, match=message):
            running.settings_of(script.SYSTEM.config, Settings(), arm, change)
    with pytest.raises(MetafilmError, match="unknown model 'x'; expected film or mac"):
        Answerer(replace(SMALL, model="x"))
