"""Many styles in one network: it learns, a new row leaves the rest alone, records are whole."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from episodes.datasets import sort_of_clevr, textures
from metafilm import film
from metafilm.errors import MetafilmError
from scripts.conditioning import contents, painter, running
from scripts.conditioning import styles as script
from scripts.conditioning.contents import Contents
from scripts.conditioning.styles import Losses, Settings, model_of

SMALL = Settings(
    width=4, blocks=1, pictures=4, iterations=12, warmup=2, learning_rate=1e-2, photographs=False
)
ARMS = yaml.safe_load(script.SYSTEM.config.read_text())["arms"]


@pytest.fixture(autouse=True)
def few(monkeypatch) -> None:
    real = sort_of_clevr.split
    monkeypatch.setattr(sort_of_clevr, "split", lambda name, n=None, **kw: real(name, min(n or 20, 20), **kw))
    monkeypatch.setattr(script, "SCORED", 3)
    monkeypatch.setattr(contents, "SIDE", 32)


def trained(settings, folder, stop=None):
    torch.manual_seed(settings.seed)
    names = script.styles_of(settings)
    model, losses, of_train, seen = model_of(settings), Losses(names), Contents("train", False), []

    def loss(step):
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)
        pictures = of_train.batch(step, settings.pictures, settings.seed)
        rows = (torch.arange(len(pictures)) + 4 * step) % len(names)
        style, content = losses(model(pictures, rows), pictures, rows)
        value = style.mean() + content.mean()
        seen.append(value.item())
        return value

    running.train(model, loss, settings, folder)
    return model, seen


def test_its_loss_falls_and_resumed_is_uninterrupted(tmp_path) -> None:
    expected, losses = trained(SMALL, tmp_path / "whole")
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    with pytest.raises(SystemExit, match="stopped after step 8"):
        trained(SMALL, tmp_path / "parts", stop=7)
    found, rest = trained(SMALL, tmp_path / "parts")
    assert rest == losses[8:]
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def test_a_style_is_its_row_and_mixes_by_weights() -> None:
    torch.manual_seed(0)
    model = model_of(SMALL).double()
    for row in model.condition.rows:
        torch.nn.init.normal_(row)
    picture = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    together = model(picture.expand(8, -1, -1, -1), torch.arange(8))
    for style in range(8):
        torch.testing.assert_close(model(picture, torch.tensor([style])), together[style : style + 1])
        weights = torch.eye(8, dtype=torch.float64)[style : style + 1]
        torch.testing.assert_close(model(picture, weights), together[style : style + 1])
    assert (together[0] - together[1]).abs().max() > 1e-2
    sites = film.sites(model.network)
    assert sum(row.numel() for row in model.condition.rows) == 2 * 8 * sum(sites.values())
    assert running.count(model, "network") == sum(
        m.weight.numel() for m in model.modules() if hasattr(m, "stride")
    )


def test_the_instance_norm_is_pytorchs() -> None:
    x = torch.randn(3, 5, 8, 8, dtype=torch.float64).to(torch.float32)
    torch.testing.assert_close(painter.InstanceNorm(5)(x), torch.nn.InstanceNorm2d(5)(x))


def test_losses_against_their_formulas() -> None:
    losses = Losses(("dots", "brick"))
    shown, painted = torch.rand(2, 2, 3, 16, 16)
    style, content = losses(painted, shown, torch.tensor([1, 0]))
    for number, name in enumerate(("brick", "dots")):
        wanted = torch.from_numpy(textures.draw(name)).permute(2, 0, 1)[None].float() / 255
        mine, of_style, of_content = (
            losses.judge(x) for x in (painted[number : number + 1], wanted, shown[number : number + 1])
        )
        shares = []
        for found, target in zip(mine, of_style, strict=True):
            products = (
                [
                    torch.stack([torch.stack([(a * b).mean() for b in maps]) for a in maps])
                    for maps in (found[0, :, :, :], target[0, :, :, :])
                ]
                if found.shape[1] < 40
                else [painter.gram(found)[0], painter.gram(target)[0]]
            )
            shares.append(((products[0] - products[1]) ** 2).sum() / (products[1] ** 2).sum())
        assert style[number].item() == pytest.approx(sum(shares).item() / 4, rel=1e-3)
        total = 0.0
        for found, target in zip(mine[1][0], of_content[1][0], strict=True):
            parts = [(m - m.mean()) / (m.var(correction=0) + 1e-5).sqrt() for m in (found, target)]
            total += ((parts[0] - parts[1]) ** 2).mean().item() / len(mine[1][0])
        assert content[number].item() == pytest.approx(total, rel=1e-3)
    same, none = losses(shown, shown, torch.tensor([0, 1]))
    assert (same > 0).all() and none.tolist() == [0, 0]
    assert not any(p.requires_grad for p in losses.judge.parameters())
    again = painter.Judge()
    assert torch.equal(again.layers[3].weight, losses.judge.layers[3].weight)


def test_contents_are_cut_within_the_pictures(monkeypatch) -> None:
    monkeypatch.setattr(contents, "SIDE", 70)
    pictures = Contents("train", False)
    first, second = pictures.batch(0, 8, 0), pictures.batch(0, 8, 0)
    assert first.shape == (8, 3, 70, 70) and torch.equal(first, second)
    assert not torch.equal(first, pictures.batch(1, 8, 0))
    scenes = sort_of_clevr.split("train").images
    for picture in (first[:2] * 255).round().byte().permute(0, 2, 3, 1).numpy():
        windows = [
            (scene[y : y + 70, x : x + 70], scene[y : y + 70, x : x + 70][:, ::-1])
            for scene in scenes
            for y in range(6)
            for x in range(6)
        ]
        assert any(np.array_equal(picture, either) for both in windows for either in both)
    assert pictures.middle(5).shape == (5, 3, 70, 70)


@pytest.mark.slow
def test_runs_and_their_records(tmp_path, monkeypatch, capsys) -> None:
    """A network of eight, eight of one and one of the ninth, a row trained alone, and their ratios."""
    monkeypatch.setattr(script.SYSTEM, "out", tmp_path / "records.json")
    settings = {"width": 4, "blocks": 1, "iterations": 2, "warmup": 1, "photographs": False}
    path = tmp_path / "styles.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                **settings,
                "arms": {
                    arm: {k: v for k, v in own.items() if k != "iterations"} for arm, own in ARMS.items()
                },
            }
        )
    )
    monkeypatch.setattr(script.SYSTEM, "config", path)
    shared = ["--runs", str(tmp_path / "runs")]
    with pytest.raises(MetafilmError, match="holds no training; train it first"):
        script.SYSTEM.main(["train", "--arm", "ninth-row", *shared])
    script.SYSTEM.main(["train", "--arm", "many", *shared])
    script.SYSTEM.main(["train", "--arm", "ninth-row", *shared])
    for style in range(9):
        script.SYSTEM.main(["train", "--arm", "separate", "--set", f"style={style}", *shared])
    assert "validation: style-loss" in capsys.readouterr().out
    for path in (tmp_path / "runs").glob("*/scores.json"):
        assert list(json.loads(path.read_text())["scores"]) == ["val"], "test pictures are for `write`"
    script.SYSTEM.main(["write", *shared])
    found = json.loads(script.SYSTEM.out.read_text())
    keys = "system arm setting metric value ci95 seeds parameters training_seconds hardware commit command"
    assert all(set(keys.split()) <= set(one) for one in found)
    ratios = {one["arm"]: one for one in found if one["metric"] == "style-loss-ratio"}
    assert set(ratios) == {"many", "ninth-row"}

    def mean(arm, styles):
        rows = [one for one in found if one["arm"] == arm and one["metric"] == "style-loss"]
        return np.mean([one["value"] for one in rows if one["setting"]["style"] in styles])

    assert ratios["many"]["value"] == pytest.approx(mean("many", [-1]) / mean("separate", range(8)), abs=2e-3)
    assert ratios["ninth-row"]["value"] == pytest.approx(
        mean("ninth-row", [8]) / mean("separate", [8]), abs=2e-3
    )
    assert ratios["ninth-row"]["parameters"] == ratios["ninth-row"]["numbers_a_style"]
    many, row = model_of(replace(SMALL, iterations=2)), model_of(replace(SMALL, style=8))
    running.restore(many, tmp_path / "runs" / "many-seed=0")
    running.restore(row, tmp_path / "runs" / "ninth-row-seed=0")
    for name, value in many.network.state_dict().items():
        assert torch.equal(value, row.network.state_dict()[name]), name
    assert any(
        (mine - rows.mean(0)).abs().max() > 0
        for mine, rows in zip(row.condition.rows, many.condition.rows, strict=True)
    )
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    script.SYSTEM.main(["draw", *shared])
    with Image.open(tmp_path / "docs" / "styles.png") as picture:
        assert picture.size == (1316, 524)
    capsys.readouterr()
    script.SYSTEM.main(["list", *shared])
    assert "separate, style=7, seed 0: style-loss" in capsys.readouterr().out


def test_errors() -> None:
    with pytest.raises(MetafilmError, match="style 9; there are 0 to 8, and -1 for eight"):
        script.styles_of(replace(SMALL, style=9))
