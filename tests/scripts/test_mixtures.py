"""The rows of mixtures: what is trained, how it is scored, and that nothing is made twice."""

import json

import pytest
import yaml

from metafilm.config import load_config
from metafilm.errors import RunError
from metafilm.evaluation import interval
from scripts import mixtures


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The script over configurations a thousandth of the size."""
    (tmp_path / "configs").mkdir()
    functions = load_config("functions").to_dict()
    functions["backbone"]["hidden"], functions["encoder"]["width"] = [8, 8], 8
    functions["outer"] |= {"iterations": 4, "meta_batch": 6, "task_chunk": 6}
    functions["evaluation"] |= {"every": 4, "episodes": 4}
    styles = load_config("styles").to_dict()
    styles["data"] |= {"name": "strokes", "image_size": 28}
    styles["backbone"]["width"] = 4
    styles["pretrain"] |= {"iterations": 3, "batch": 16}
    styles["episodes"] |= {"queries": 2}
    styles["outer"] |= {"iterations": 4, "plain": 8, "precision": "float32"}
    styles["evaluation"] |= {"every": 4, "episodes": 4, "queries": 2}
    for settings in (functions, styles):
        (tmp_path / "configs" / f"{settings['name']}.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(mixtures, "ROOT", tmp_path)
    return tmp_path


def run(place, name: str, *words: str) -> list[dict]:
    out = place / "out.json"
    common = [name, str(place / name), "--out", str(out), "--split", "val"]
    assert mixtures.main([*common, *words]) == 0
    return json.loads(out.read_text())


def test_functions(small, monkeypatch) -> None:
    rows = run(small, "functions", "--kinds", "2", "--episodes", "8")
    assert [row["setting"] for row in rows] == [
        {"kinds": 2, "encoder": True, "inner_steps": load_config("functions").inner.steps},
        {"kinds": 2, "encoder": True, "inner_steps": 0},
        {"kinds": 2, "encoder": False, "inner_steps": load_config("functions").inner.steps},
    ]
    assert all((row["shots"], row["queries"], row["dataset"]) == (5, 5, "functions-2") for row in rows)
    assert set(rows[0]["by_domain"]) == {"sine", "line"} and rows[0]["mse"] > 0.09

    def never(*_, **__):
        raise AssertionError("trained or scored again")

    monkeypatch.setattr(mixtures, "train", never)
    again = run(small, "functions", "--kinds", "2", "--episodes", "8")
    assert again == rows, "kept"
    other = yaml.safe_load((small / "configs" / "functions.yaml").read_text())
    other["outer"]["learning_rate"] = 0.5
    (small / "configs" / "functions.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(RunError, match=r"--outer\.learning-rate is 0\.5"):
        run(small, "functions", "--kinds", "2", "--episodes", "8")


@pytest.mark.slow
def test_styles(small, monkeypatch) -> None:
    scores: dict[tuple[str, str], list[float]] = {}
    record = mixtures.record

    def noted(path, *, per_task, **options):
        found = record(path, per_task=per_task, **options)
        name = path.rsplit("/")[-1] + ("-by-support" if options.get("norm") else "")
        scores[name, options["style"]] = per_task[0]
        return found

    monkeypatch.setattr(mixtures, "record", noted)
    rows = run(small, "styles", "--episodes", "6", "--shots", "1")
    names = list(mixtures.SCORED)
    assert names[-1] == "prototypes" and {row["norm"] for row in rows} == {"running", "support"}
    assert [(row["setting"]["arm"], row["style"]) for row in rows] == [
        (arm, style) for style in mixtures.STYLES for arm in names
    ]
    for row in rows:
        arm = row["setting"]["arm"]
        own = scores[arm, row["style"]]
        assert len(own) == 6 and row["accuracy"] == pytest.approx(sum(own) / 6)
        assert list(row["over"]) == names[names.index(arm) + 1 :]
        for other, (gain, half) in row["over"].items():
            gains = [a - b for a, b in zip(own, scores[other, row["style"]], strict=True)]
            assert gain == pytest.approx(sum(gains) / 6) and half == interval(gains)
        # the network of the plain ones alone takes the statistics of its training
        assert ("--backbone.norm running" in row["train_command"]) is arm.startswith("prototypes")
        assert ("--norm support" in row["command"]) is (arm == "prototypes-by-support")
        assert row["norm"] == ("running" if arm == "prototypes" else "support")


def test_only_the_usual_tasks_are_committed(capsys) -> None:
    for words in (["--split", "val"], ["--shots", "1"], ["--episodes", "9"]):
        with pytest.raises(SystemExit):
            mixtures.main(["styles", "runs/styles", *words])
        assert "give others an --out" in capsys.readouterr().err
