"""Instructions in BabyAI's rooms: the smallest setting learns, resumes exactly, and its records are whole."""

import json
import os
import signal
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from metafilm.errors import MetafilmError
from scripts.conditioning import demonstrations, running
from scripts.conditioning import instructions as script
from scripts.conditioning.instructions import Agent, Examples, Settings

pytestmark = pytest.mark.skipif(
    find_spec("minigrid") is None, reason="needs minigrid: pip install 'metafilm[conditioning]'"
)

SMALL = Settings(
    demonstrations=40, width=16, blocks=1, words=16, state=16, episodes=8, iterations=40, warmup=5
)
ARMS = yaml.safe_load(script.SYSTEM.config.read_text())["arms"]


@pytest.fixture(scope="module")
def shown() -> demonstrations.Demonstrations:
    return demonstrations.make("gotolocal", demonstrations.SPLITS["train"], 40)


@pytest.fixture(scope="module")
def data(shown) -> Examples:
    return Examples.of(shown)


def small(arm) -> Settings:
    """The arm, small."""
    settings = script.SYSTEM.settings(arm)
    return replace(SMALL, condition=settings.condition, modulation=settings.modulation, learning_rate=3e-3)


def trained(settings, data, folder, stop=None):
    torch.manual_seed(settings.seed)
    agent, losses = Agent(settings), []

    def loss(step):
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)
        episodes, actions = data.batch(step, settings.episodes, settings.seed)
        value = F.cross_entropy(agent(*episodes), actions)
        losses.append(value.item())
        return value

    running.train(agent, loss, settings, folder)
    return agent, losses


@pytest.mark.parametrize("arm", ["film", "dual"])
def test_its_loss_falls(arm, data, tmp_path) -> None:
    _, losses = trained(small(arm), data, tmp_path)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_resumed_is_uninterrupted(data, tmp_path) -> None:
    settings = replace(SMALL, iterations=10, average=0.99)
    expected, losses = trained(settings, data, tmp_path / "whole")
    with pytest.raises(SystemExit, match="stopped after step 4"):
        trained(settings, data, tmp_path / "parts", stop=3)
    found, rest = trained(settings, data, tmp_path / "parts")
    assert rest == losses[4:]
    again = Agent(settings)
    running.restore(again, tmp_path / "parts")
    for model in (found, again):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
    with pytest.raises(MetafilmError, match="holds the training of another network"):
        running.restore(Agent(replace(settings, state=8)), tmp_path / "parts")
    with pytest.raises(MetafilmError, match="holds no training; train it first"):
        running.restore(again, tmp_path)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if not arm.endswith("withheld")])
def test_every_arm_acts_by_the_instruction(arm, data) -> None:
    torch.manual_seed(0)
    agent = Agent(small(arm)).double().eval()
    if hasattr(agent.eyes.condition, "multiplier"):
        torch.nn.init.normal_(agent.eyes.condition.multiplier)
    said = torch.tensor([[2, 4, 3, 5, 11], [2, 4, 3, 9, 13]])
    views, lengths = data.views[:1].repeat(2, 1, 1, 1), torch.tensor([1, 1])
    logits = agent(views, said, torch.tensor([0, 1]), lengths)
    assert ((logits[0] - logits[1]).abs().max() > 1e-9) == (arm != "none")


def test_episodes_together_are_episodes_alone(data) -> None:
    """Many of different lengths at once, against one step of one episode after the other."""
    torch.manual_seed(0)
    agent = Agent(SMALL).eval()
    torch.nn.init.normal_(agent.eyes.condition.multiplier)
    (views, said, rows, lengths), actions = data.chosen(torch.tensor([3, 0, 7]))
    assert len(actions) == len(views) == len(rows) == int(lengths.sum())
    with torch.no_grad():
        together = agent(views, said, rows, lengths)
        at = 0
        for length in lengths.tolist():
            memory = None
            for frame in range(at, at + length):
                seen = agent.see(views[frame : frame + 1], said, rows[frame : frame + 1])
                h, memory = agent.memory(seen.unsqueeze(1), memory)
                torch.testing.assert_close(agent.act(h[0, 0]), together[frame], rtol=1e-4, atol=1e-5)
            at += length


def test_the_examples_are_the_demonstrations(shown, data) -> None:
    ends = np.cumsum(shown.lengths)
    for number in (0, 1, 39):
        (views, said, rows, lengths), actions = data.chosen(torch.tensor([number]))
        part = slice(ends[number] - shown.lengths[number], ends[number])
        assert np.array_equal(views.numpy(), shown.views[part])
        assert np.array_equal(actions.numpy(), shown.actions[part])
        assert (said[rows].numpy() == shown.words[number]).all() and lengths.tolist() == [len(actions)]
    epoch = torch.cat([data.batch(step, 8, 0)[0][3] for step in range(5)])
    assert sorted(epoch.tolist()) == sorted(shown.lengths.tolist())
    fewer = Examples.of(shown, script.WITHHELD)
    goals = demonstrations.goals(shown.words)
    withheld = [
        (demonstrations.COLOURS[colour], demonstrations.KINDS[kind]) in script.WITHHELD
        for colour, kind in goals
    ]
    assert sum(withheld) > 0 and len(fewer.lengths) == 40 - sum(withheld)
    said = demonstrations.goals(fewer.said.numpy())
    assert not any((demonstrations.COLOURS[c], demonstrations.KINDS[k]) in script.WITHHELD for c, k in said)


def test_an_agent_that_copies_the_bot_wins_and_one_that_stands_does_not(monkeypatch) -> None:
    seeds = [100_000, 100_001, 100_003]
    rooms = [demonstrations.make("gotolocal", seed, 1) for seed in seeds]

    class Copy(Agent):
        """Does what was shown in the room whose views it sees; the last room's agent turns for ever."""

        def see(self, views, said, rows):
            found = torch.zeros(len(views), SMALL.width)
            for number, view in enumerate(views.numpy()):
                for room in rooms[:2]:
                    same = (room.views == view).all((1, 2, 3))
                    if same.any() and (room.words[0] == said[rows[number]].numpy()).all():
                        found[number, int(room.actions[same.argmax()])] = 1.0
            return found

    agent = Copy(SMALL)

    class Through(torch.nn.Module):
        hidden_size = SMALL.state

        def forward(self, seen, memory):
            return seen, memory

    agent.memory, agent.act = Through(), torch.nn.Identity()
    assert script.play(agent, "gotolocal", seeds).tolist() == [True, True, False]


@pytest.mark.slow
def test_a_run_and_its_records(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(script.SYSTEM, "out", tmp_path / "records.json")
    monkeypatch.setattr(script, "TRIES", 4)
    monkeypatch.setenv("METAFILM_DATA", str(tmp_path / "data"))
    shared = ["--arm", "film-withheld", "--runs", str(tmp_path / "runs")]
    for change in ("demonstrations=20", "iterations=2", "width=8", "words=8", "episodes=4"):
        shared += ["--set", change]
    for seed in ("0", "1"):
        script.SYSTEM.main(["train", "--seed", seed, *shared])
    assert capsys.readouterr().out.count("validation: success-gotolocal ") == 2
    for path in (tmp_path / "runs").glob("*/scores.json"):
        assert list(json.loads(path.read_text())["scores"]) == ["val"], "test seeds are for `write`"
    script.SYSTEM.main(["write", "--runs", str(tmp_path / "runs")])
    script.SYSTEM.main(["write", "--runs", str(tmp_path / "runs")])
    found = json.loads(script.SYSTEM.out.read_text())
    assert [one["metric"] for one in found] == ["success-gotolocal", "success-unseen"]
    keys = "system arm setting metric value ci95 seeds parameters training_seconds hardware commit command"
    for one in found:
        assert set(keys.split()) <= set(one) and one["seeds"] == [0, 1]
        command = one["command"].removeprefix("for seed in 0 1; do ").removesuffix("; done")
        options = script.SYSTEM.parsed(None, command.replace("$seed", "0").split()[2:])
        again = script.SYSTEM.settings(options.arm, options.set)
        assert again.width == 8 and again.iterations == 2 and again.withheld
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr("scripts.figures.DOCS", tmp_path / "docs")
    script.SYSTEM.main(["film", *shared])
    script.SYSTEM.main(["draw", *shared])
    with Image.open(tmp_path / "docs" / "instructions.gif") as moving:
        assert moving.n_frames > 6
    assert (tmp_path / "docs" / "instructions.svg").stat().st_size > 1000
    capsys.readouterr()
    script.SYSTEM.main(["list", "--runs", str(tmp_path / "runs")])
    assert "film-withheld, iterations=2, demonstrations=20" in capsys.readouterr().out
    with pytest.raises(MetafilmError, match="no finished runs in"):
        script.SYSTEM.main(["write", "--runs", str(tmp_path)])
    with pytest.raises(MetafilmError, match="unknown condition 'x'; expected film, dual or none"):
        Agent(replace(SMALL, condition="x"))
