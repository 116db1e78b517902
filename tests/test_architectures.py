"""Networks of timm and torchvision, one of each kind, through all that `metafilm.film` promises; the record
of the others."""

from pathlib import Path

import pytest
from torch import nn

from metafilm import film
from scripts import architectures
from scripts.architectures import ARCHITECTURES, CHECKS, Architecture

pytest.importorskip("timm")
ROOT = Path(__file__).resolve().parent.parent
BY_NAME = {str(one): one for one in ARCHITECTURES}
ROWS = architectures.read()
QUICK = {  # timm's smallest
    "timm:test_resnet": "convolutional",
    "timm:test_nfnet": "norm-free",  # weights that are standardised
    "timm:test_efficientnet_evos": "norm-and-activation",  # norms that are no subclass of PyTorch's
    "timm:test_convnext": "convolutional",
    "timm:test_vit3": "vision transformer",
    "torchvision:squeezenet1_1": "norm-free",
}


@pytest.mark.parametrize("name", QUICK)
def test_one_of_each_kind(name) -> None:
    library, _, model = name.partition(":")
    found = architectures.tried(Architecture(library, model, QUICK[name]))
    assert found["reason"] is None and found["passed"] == list(CHECKS)
    assert found["batch"] == "any" and found["sites"] > 10


def test_a_check_that_fails_is_named(monkeypatch) -> None:
    """A network whose images see each other keeps no two tasks apart; one that ignores δ proves nothing."""

    class Mixing(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + super().forward(x).mean(0)

    def make(kind):
        return lambda _: kind(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    one = Architecture("timm", "mixing", "convolutional")
    monkeypatch.setattr(Architecture, "make", lambda self: make(Mixing)(self).eval())
    found = architectures.tried(one)
    assert found["passed"] == ["identity"] and found["reason"].startswith("Failed: tasks: ")
    monkeypatch.setattr(Architecture, "make", lambda _: nn.Sequential(nn.BatchNorm2d(3), nn.Threshold(9, 1)))
    assert "deviations moved the output by" in architectures.tried(one)["reason"]


def test_a_run_that_was_stopped_goes_on(monkeypatch, tmp_path, capsys) -> None:
    first, second = ARCHITECTURES[:2]
    monkeypatch.setattr(architectures, "OUT", tmp_path / "architectures.json")
    monkeypatch.setattr(architectures, "ARCHITECTURES", [first, second])
    seen = []

    def tried(one):
        seen.append(one)
        if len(seen) == 2:
            raise KeyboardInterrupt
        row = {"library": one.library, "name": one.name, "kind": one.kind, "image_size": 64, "seconds": 1.0}
        return {**row, "passed": list(CHECKS), "reason": None, "batch": "any"}

    monkeypatch.setattr(architectures, "tried", tried)
    with pytest.raises(KeyboardInterrupt):
        architectures.try_all(None)
    assert list(architectures.read()) == [str(first)]
    assert architectures.try_all(None) == 0 and seen == [first, second, second]
    assert capsys.readouterr().out == "2 of 2 timm networks passed\n"
    assert architectures.try_all(["timm:nothing"]) == 2


def test_the_record_is_whole() -> None:
    keys = set(
        "library name kind family image_size parameters sites deviations passed reason seconds command "
        "versions hardware commit".split()
    )
    assert set(ROWS) == set(BY_NAME)
    for name, row in ROWS.items():
        assert set(row) >= keys and len(row["commit"].removesuffix("-dirty")) == 40
        assert BY_NAME[name].kind == row["kind"] and row["sites"] > 0
        assert (row["reason"] is None) == (row["passed"] == list(CHECKS))
        if row["reason"] is None:
            errors = [row[f"{check}_error"] for check in ("tasks", "rows", "fold", "export")]
            assert max(errors) <= architectures.TOLERANCE < row["moved"]
        words = row["command"].split()
        assert words[:2] == ["python", "scripts/architectures.py"]
        assert architectures.parsed(words[2:]).name == [name]
    of_timm = [row for row in ROWS.values() if row["library"] == "timm"]
    passed = sum(row["reason"] is None for row in of_timm)
    assert len(of_timm) >= 40 and passed / len(of_timm) >= 38 / 40
    assert len({row["kind"] for row in of_timm}) == len(architectures.KINDS)


def test_the_page_is_drawn_from_the_record() -> None:
    assert architectures.PAGE.read_text() == architectures.page()


def test_every_family_of_torchvision_is_tried() -> None:
    """A family is a file of torchvision.models."""
    from torchvision import models

    names = models.list_models(module=models)
    families = {models.get_model_builder(name).__module__ for name in names}
    tried = {
        models.get_model_builder(one.name).__module__ for one in ARCHITECTURES if one.library == "torchvision"
    }
    assert tried == families
    assert film.SITES  # the sites that need no names are what is tried
