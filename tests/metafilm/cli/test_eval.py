"""`metafilm eval`: which test classes were trained on, and where its record goes."""

import errno
import json
import os

import pytest
import safetensors
import safetensors.torch
import yaml

from metafilm import MetaFiLM, film, heads
from metafilm.backbones import Conv4
from metafilm.cli import main
from metafilm.cli.text.table import print_table
from metafilm.config import Config
from metafilm.learner import build_learner
from metafilm.storage import atomic
from metafilm.storage.models import read_classes


@pytest.fixture
def common(place) -> list[str]:
    return ["--data-root", str(place / "root"), "--episodes", "2"]


def test_weights_name_the_classes_they_were_trained_on(place):
    (found,) = read_classes(place / "run" / "model.safetensors")  # type: ignore[misc]
    assert found.names == tuple(f"kind{kind}" for kind in range(8))
    assert (found.dataset, found.split) == (f"folder:{place / 'pictures'}", "train")


@pytest.mark.parametrize(("split", "known", "total"), [("test", 0, 4), ("train", 8, 8)])
@pytest.mark.parametrize("named", [True, False])
def test_training_classes_in_the_test_are_counted_and_warned_of(
    place, common, tmp_path, capsys, split, known, total, named
):
    weights = place / "run" / "model.safetensors"
    if not named:  # as older files are: the configuration tells where to look
        with safetensors.safe_open(weights, framework="pt") as file:
            metadata = {name: value for name, value in file.metadata().items() if name != "classes"}
        older = tmp_path / "older.safetensors"
        safetensors.torch.save_file(safetensors.torch.load_file(weights), older, metadata)
        weights = older
    assert main(["eval", str(weights), *common, "--split", split, "--json", str(tmp_path / "r.json")]) == 0
    record = json.loads((tmp_path / "r.json").read_text())
    assert (record["training_classes_in_test"], record["test_classes"]) == (known, total)
    assert (f"warning: {known} of the {total} test classes" in capsys.readouterr().err) == (known > 0)


def test_a_learner_saved_without_settings_needs_a_data_set(tmp_path, capsys):
    backbone = film.insert(Conv4((1, 28, 28), width=4))
    file = tmp_path / "mine.safetensors"
    MetaFiLM(backbone, heads.PrototypeHead(0.1), image_shape=(1, 28, 28)).save(file)
    assert main(["eval", str(file), "--episodes", "2"]) == 2
    assert "without settings" in capsys.readouterr().err
    record = tmp_path / "r.json"
    assert main(["eval", str(file), "--episodes", "2", "--dataset", "strokes", "--json", str(record)]) == 0
    found = json.loads(record.read_text())
    assert (found["training_classes_in_test"], found["test_classes"]) == (None, 200)


def test_one_grey_data_set_of_a_mixture_with_colours(tmp_path, capsys):
    """It is drawn as it was in the mixture: in three channels and in its own style."""
    settings = {
        "data": {"name": ["folder:elsewhere", "strokes"], "image_size": 28, "weights": [1, 2]},
        "episodes": {
            "ways": 2,
            "queries": 1,
            "style": ["none", "known-strokes"],
            "within_group": [True, False],
        },
        "backbone": {"width": 2},
    }
    file, out = tmp_path / "mine.safetensors", tmp_path / "record.json"
    build_learner(Config.from_dict(settings), (3, 28, 28)).save(file)
    assert main(["eval", str(file), "--dataset", "strokes", "--episodes", "2", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["dataset"], found["style"], found["within_group"]) == ("strokes", "known-strokes", False)


def test_another_data_set_is_not_turned_and_the_record_says_so(place, tmp_path):
    """The run's convention is of its own data set; turned, each class would count four times."""
    settings = {
        "data": {"name": f"folder:{place / 'pictures'}", "image_size": 28, "rotated_classes": True},
        "episodes": {"ways": 2, "queries": 1},
        "backbone": {"width": 2},
    }
    file, out = tmp_path / "mine.safetensors", tmp_path / "record.json"
    build_learner(Config.from_dict(settings), (3, 28, 28)).save(file)
    words = ["eval", str(file), "--episodes", "2", "--data-root", str(place / "root"), "--json", str(out)]
    for more, turned in (
        ([], True),
        (["--rotated-classes", "no"], False),
        (["--dataset", "strokes"], False),
        (["--dataset", "strokes", "--rotated-classes", "yes"], True),
    ):
        assert main([*words, *more]) == 0
        assert json.loads(out.read_text())["rotated_classes"] is turned


def test_record_on_standard_output(place, common, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", str(place / "run"), *common, "--split", "train", "--json", "-"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["split"] == "train" and "warning: 8 of the 8" in shown.err
    assert not (tmp_path / "-").exists()


def test_table_of_a_mixture_has_a_block_for_each_domain(capsys):
    part = {
        "accuracy_by_step": [50.0, 61.234],
        "ci95_by_step": [1.0, 2.0],
        "gain_by_step": [0.0, 11.234],
        "gain_ci95_by_step": [0.0, 1.5],
        "episodes": 3,
    }
    shape = {"dataset": ["a", "b"], "split": "test", "ways": 5, "shots": 1, "stages": ["identity", "step 1"]}
    rest = {"protocol": "inductive", "wall_seconds": 1.0, "checkpoint": "x", "encoder_support": "own"}
    print_table(shape | rest | part | {"by_domain": {"a": part, "b": part | {"episodes": 4}}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a + b test, 5-way 1-shot, 3 episodes, inductive"
    assert lines[2] == "  after inner step 1       61.23 ± 2.00 %   +11.23 ± 1.50 over before adaptation"
    assert lines[3] == "  of a, 3 episodes" and lines[6] == "  of b, 4 episodes"
    assert lines[5] == lines[8] == "  " + lines[2]


def test_table_of_functions_says_how_much_lower_the_error_is(capsys):
    found = {
        "dataset": "sinusoids",
        "split": "test",
        "ways": 0,
        "shots": 10,
        "episodes": 4,
        "protocol": "inductive",
        "stages": ["identity", "encoder"],
        "mse": 1.0,
        "mse_by_step": [3.0, 1.0],
        "ci95_by_step": [0.2, 0.1],
        "gain_by_step": [0.0, 2.0],
        "gain_ci95_by_step": [0.0, 0.05],
        "wall_seconds": 1.0,
        "checkpoint": "x",
        "encoder_support": "own",
    }
    print_table(found)
    assert "1.0000 ± 0.1000   lower by 2.0000 ± 0.0500 than before adaptation" in capsys.readouterr().out


def test_scores_are_printed_before_a_full_disk_refuses_the_record(
    place, common, tmp_path, monkeypatch, capsys
):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert main(["eval", str(place / "run"), *common]) == 0  # the pictures' cache is written now, not then
    capsys.readouterr()
    monkeypatch.setattr(atomic.os, "fsync", full)
    file = tmp_path / "record.json"
    assert main(["eval", str(place / "run"), *common, "--json", str(file)]) == 2
    shown = capsys.readouterr()
    assert "after inner step 1" in shown.out and " ± " in shown.out
    (line,) = shown.err.splitlines()
    assert line.startswith(f"error: {file}: No space left on device; make room")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def two(place) -> tuple[list[str], list[str]]:
    """Words that score the run on three classes, and two data sets for it."""
    words = ["eval", str(place / "run"), "--data-root", str(place / "root"), "--episodes", "3"]
    words += ["--ways", "3", "--queries", "2", "--split", "train"]
    return words, [f"folder:{place / 'pictures'}", f"folder:{place / 'pictures' / 'train'}"]


def test_several_data_sets_have_a_table_and_a_record_each(two, tmp_path, capsys):
    """The same figures as one by one."""
    words, names = two
    words += ["--json", str(tmp_path / "r.json")]
    assert main([*words, "--dataset", *names]) == 0
    together, shown = json.loads((tmp_path / "r.json").read_text()), capsys.readouterr().out
    assert [row["dataset"] for row in together] == names
    assert shown.count("  before adaptation") == 2 and all(f"{name} train, 3-way" in shown for name in names)
    for name, row in zip(names, together, strict=True):
        assert main([*words, "--dataset", name]) == 0
        alone = json.loads((tmp_path / "r.json").read_text())
        assert {**alone, "wall_seconds": 0} == {**row, "wall_seconds": 0}
    capsys.readouterr()
    assert main([*words, "--dataset", names[0], names[0]]) == 2
    assert f"names {names[0]} more than once" in capsys.readouterr().err


def test_other_domain_among_the_data_sets_named(two, tmp_path, capsys):
    words, names = two
    words += ["--encoder-support", "other-domain", "--json", str(tmp_path / "r.json")]
    assert main(words) == 2
    assert "of one data set alone" in capsys.readouterr().err
    assert main([*words, "--dataset", *names]) == 0
    for row in json.loads((tmp_path / "r.json").read_text()):
        assert row["encoder_support"] == "other-domain"
        assert row["encoder_difference"] == pytest.approx(row["accuracy_own_support"] - row["accuracy"])
    assert capsys.readouterr().out.count("read a support of another data set") == 2


FUNCTIONS = {"data": {"name": "sinusoids"}, "head": {"name": "regression"}, "backbone": {"name": "mlp"}}
SORTED = {"data": {"name": "strokes", "image_size": 16}, "episodes": {"criteria": "all", "ways": 2}}


@pytest.mark.parametrize(
    ("settings", "shape", "words", "said"),
    [
        (FUNCTIONS, (1,), ["--split", "tset"], "split 'tset' of sinusoids: choose one of train, val, test"),
        (FUNCTIONS, (1,), ["--scheme", "lake"], "--scheme is not for tasks of functions"),
        (FUNCTIONS, (1,), ["--ways", "3", "--within-group"], "--ways --within-group is not for"),
        (SORTED, (1, 16, 16), ["--style", "negative"], "--style is not for tasks sorted by a criterion"),
        (SORTED, (1, 16, 16), ["--rotated-classes", "yes"], "--rotated-classes is not for tasks sorted"),
    ],
)
def test_what_says_nothing_of_the_tasks_is_refused(settings, shape, words, said, tmp_path, capsys):
    """Nothing is written into a record that was not done."""
    file = tmp_path / "mine.safetensors"
    build_learner(Config.from_dict(settings), shape).save(file)
    assert main(["eval", str(file), "--episodes", "2", *words]) == 2
    assert said in capsys.readouterr().err


def test_another_head_at_test_and_how_the_record_names_it(place, common, tmp_path, capsys):
    settings = yaml.safe_load((place / "tiny.yaml").read_text())
    settings["backbone"] |= {"pools": 3, "pooling": "mean"}
    settings |= {"encoder": {"enabled": False}, "inner": {"steps": 0}, "head": {"name": "cosine"}}
    file, out = tmp_path / "mine.safetensors", tmp_path / "record.json"
    build_learner(Config.from_dict(settings), (3, 16, 16)).save(file)
    words = ["eval", str(file), *common, "--json", str(out)]

    def scored(*more: str) -> dict:
        assert main([*words, *more]) == 0
        return json.loads(out.read_text())

    plain = scored()
    names = ("head", "transform", "blend", "blend_weight", "pooling")
    names += ("copies", "copy_augment", "query_copies")
    assert [plain[name] for name in names] == ["cosine", [], None, None, "mean", 0, None, 0]
    found = scored(
        *("--transform", "centre", "power", "--blend", "reconstruction", "--blend-weight", "0.4"),
        *("--copies", "2", "--copy-augment", "crop-flip", "--query-copies", "1"),
    )
    expected = ["cosine", ["centre", "power"], "reconstruction", 0.4, "flatten", 2, "crop-flip", 1]
    assert [found[name] for name in names] == expected
    assert found["weights"] == plain["weights"], "those that were trained"
    found = scored("--head", "descriptors", "--pooling", "flatten2x2", "--head-scale", "3")
    assert [found[name] for name in names] == ["descriptors", [], None, None, "flatten2x2", 0, None, 0]
    assert scored("--transform", "none")["transform"] == []
    whole = scored("--norm", "transductive")
    assert (plain["norm"], plain["protocol"]) == ("running", "inductive")
    assert (whole["norm"], whole["protocol"]) == ("transductive", "transductive")
    shown = capsys.readouterr()
    assert "cosine + 0.4 reconstruction" in shown.out and "2 copies, of a query 1, by crop-flip" in shown.out
    assert main([*words, "--head", "median"]) == 2
    assert "--head.name median is unknown" in capsys.readouterr().err
    bare = tmp_path / "bare.safetensors"
    MetaFiLM(film.insert(Conv4((1, 28, 28), 4)), heads.CosineHead(10.0), image_shape=(1, 28, 28)).save(bare)
    assert main(["eval", str(bare), "--dataset", "strokes", "--head-scale", "3", "--copies", "1"]) == 2
    assert "--head-scale --copies can't be given" in capsys.readouterr().err
