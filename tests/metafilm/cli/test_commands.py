"""The command line end to end, on a folder of drawn pictures."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import episodes
import metafilm
from metafilm.cli import demo as cli_demo
from metafilm.cli import main
from metafilm.cli.commands import parse
from metafilm.config import Config, load_config
from metafilm.learner.task import Task
from metafilm.storage.run import RunDirectory

# Four validation tasks say little, and may look like overfitting.
pytestmark = pytest.mark.filterwarnings("ignore:.*overfits its training classes:UserWarning")


def again(place: Path, *more: str) -> list[str]:
    return [
        "train",
        str(place / "tiny.yaml"),
        *("--run-dir", str(place / "run"), "--data-root", str(place / "root")),
        *more,
    ]


def test_train_writes_the_run_directory(place):
    run = RunDirectory(place / "run")
    assert run.config().name == "tiny" and run.read_results()["iterations"] == 6
    assert run.model_file.is_file() and run.checkpoint_file.is_file()
    assert run.read_metrics()[-1]["iteration"] == 6


def test_train_again_says_that_it_resumes(place, capsys):
    before = (place / "run" / "model.safetensors").read_bytes()
    assert main(again(place)) == 0
    assert "resuming" in capsys.readouterr().out
    assert (place / "run" / "model.safetensors").read_bytes() == before


def test_other_settings_are_refused_in_one_message(place, capsys):
    assert main(again(place, "--seed", "4")) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and "--seed is 4, was 0" in shown and "Traceback" not in shown


def test_interrupted_training_goes_on_to_the_same_weights(place, tmp_path):
    arguments = ["train", str(place / "tiny.yaml"), "--data-root", str(place / "root")]
    # chunks named: two fresh runs that measure them may differ in the last bits
    arguments += [
        "--outer.iterations",
        "30",
        "--evaluation.every",
        "15",
        "--task-chunk",
        "1",
        "--threads",
        "1",
    ]
    uninterrupted, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*arguments, "--run-dir", str(uninterrupted)]) == 0
    # The child interrupts itself once metrics show that it is under way: no clock decides the test.
    script = (
        "import os, signal, sys\n"
        "from metafilm.training import tracking\n"
        "from metafilm.cli.commands import main\n"
        "log = tracking.Tracker.log\n"
        "def and_stop(self, record):\n"
        "    log(self, record)\n"
        "    if record['iteration'] == 10:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "tracking.Tracker.log = and_stop\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--run-dir", str(stopped)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert child.returncode == 130 and "Traceback" not in child.stderr, child.stderr
    assert "of 30 is saved" in child.stderr and "same command goes on" in child.stderr
    saved = RunDirectory(stopped).load_checkpoint()
    assert saved is not None and 10 <= saved["iteration"] < 30
    assert main([*arguments, "--run-dir", str(stopped)]) == 0
    for name in ("model.safetensors", "config.yaml"):
        assert (stopped / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_eval_writes_its_record(place, tmp_path, capsys):
    file = tmp_path / "record.json"
    common = ["eval", str(place / "run"), "--data-root", str(place / "root"), "--episodes", "5"]
    assert main([*common, "--ways", "4", "--shots", "2", "--queries", "3", "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    expected = {"dataset", "split", "ways", "shots", "queries", "episodes", "seed", "accuracy", "ci95"}
    expected |= {"accuracy_by_step", "protocol", "checkpoint", "wall_seconds"}
    assert expected <= record.keys()
    assert (record["ways"], record["shots"], record["queries"], record["episodes"]) == (4, 2, 3, 5)
    assert record["split"] == "test" and record["protocol"] == "inductive"
    assert record["accuracy"] == record["accuracy_by_step"][-1] and len(record["accuracy_by_step"]) == 3
    assert 0 <= record["accuracy"] <= 100
    shown = capsys.readouterr().out
    assert "after the task encoder" in shown and "4-way 2-shot" in shown
    last = f"{record['gain_by_step'][-1]:+.2f} ± {record['gain_ci95_by_step'][-1]:.2f} over before adaptation"
    assert last in shown and shown.count("over before adaptation") == 2

    assert main([*common, "--encoder-support", "shuffled", "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    difference = record["accuracy_own_support"] - record["accuracy"]
    assert record["encoder_support"] == "shuffled" and record["encoder_difference"] == pytest.approx(
        difference
    )
    assert record["encoder_difference_ci95"] >= 0 and record["encoder_shared_classes"] >= 0
    assert main([*common, "--steps", "0", "--encoder-support", "none", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["stages"] == ["identity"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["eval", "RUN", "--ways", "1", "--episodes", "1"],
            "--ways must be at least 2, is 1; --episodes must",
        ),
        (["eval", "RUN", "--ways", "40"], "40"),
        (["eval", "RUN", "--split", "tset"], "tset"),
        (["eval", "RUN", "--dataset", "omniglt"], "did you mean 'omniglot'"),
        (["eval", "RUN", "--json", "/no/such/folder/x.json"], "there is no folder /no/such/folder"),
        (["eval", "nothing-here"], "is neither a run directory"),
        (["predict", "RUN", "--support", "/no/such", "--query", "/no/such"], "/no/such"),
        (["train", "no-such-config"], "neither a file nor a shipped config; there are"),
        (["train", "demo", "--outer.iterations", "0", "--seed", "-1"], "2 problems"),
        (["train", "--run-dir", "x", "demo"], "name the configuration first: metafilm train demo"),
        (["data", "prepare"], "needs a data set"),
        (["data", "check", "omniglt"], "did you mean 'omniglot'"),
    ],
)
def test_mistakes_are_one_red_message_and_exit_code_2(place, arguments, expected, capsys):
    arguments = [str(place / "run") if word == "RUN" else word for word in arguments]
    if arguments[0] == "eval":
        arguments += ["--data-root", str(place / "root")]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and expected in shown.err and "Traceback" not in shown.err
    assert shown.out == ""


def test_debug_shows_the_traceback(place):
    with pytest.raises(ValueError, match="neither"):
        main(["eval", "nothing-here", "--debug"])


def test_predict_on_own_pictures(place, pictures, tmp_path, capsys):
    support, query = pictures
    file, kept = tmp_path / "out.json", tmp_path / "task.safetensors"
    common = ["predict", str(place / "run"), "--support", str(support), "--query", str(query)]
    assert main([*common, "--json", str(file), "--save-task", str(kept)]) == 0
    shown = capsys.readouterr()
    assert f"skipped {support / 'kind0' / 'broken.png'}" in shown.err
    assert f"skipped {query / 'kind0' / 'broken.png'}" in shown.err
    found = json.loads(file.read_text())
    assert found["classes"] == ["kind0", "kind1", "kind2"]
    assert len(found["predictions"]) == 10 and found["labelled"] == 9 and len(found["skipped"]) == 2
    for row in found["predictions"]:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == max(row["probabilities"].values())
        assert row["class"] == (Path(row["file"]).parent.name if "loose" not in row["file"] else None)
        assert row["file"] in shown.out
    right = sum(row["class"] == row["prediction"] for row in found["predictions"])
    assert found["accuracy"] == pytest.approx(100 * right / 9)
    assert kept.stat().st_size < 20_000
    from metafilm.learner import load_learner

    task = Task.load(kept, load_learner(place / "run"))
    assert task.classes == found["classes"]

    assert main([*common, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_predict_without_pictures(place, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = [
        "predict",
        str(place / "run"),
        "--support",
        str(pictures[0]),
        "--query",
        str(tmp_path / "empty"),
    ]
    assert main(arguments) == 2
    assert "holds no pictures" in capsys.readouterr().err


def test_pictures_that_are_examples_too_are_told(place, pictures, capsys):
    """One folder for both, one in the other, and a link to it."""
    support, query = pictures
    inside = support / "kind1"
    shutil.copytree(query, support / "kind2" / "query")
    (query / "kind1" / "again").symlink_to(inside)
    common = ["predict", str(place / "run"), "--support", str(support)]
    for folder, said in (
        (support, "9 of the 19 pictures"),
        (inside, "3 of the 3 pictures"),
        (query, "3 of the 13 pictures"),
        (support / "kind2" / "query", None),  # no class reads what lies deeper than its folder
    ):
        assert main([*common, "--query", str(folder)]) == 0
        warned = capsys.readouterr().err
        assert f"warning: {said} to classify are examples too" in warned if said else "warning" not in warned


def test_data_list_prepare_check(place, tmp_path, capsys):
    assert main(["data", "list", "--data-root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("omniglot", "miniimagenet", "strokes", "sinusoids", str(tmp_path)))
    folder = f"folder:{place / 'pictures'}"
    for action in ("prepare", "check"):
        assert main(["data", action, folder, "--data-root", str(tmp_path)]) == 0
        assert "train" in (shown := capsys.readouterr().out) and "8 classes" in shown


def test_links_pipes_and_names_that_are_no_text(place, pictures, tmp_path, capfd):
    support, query = pictures
    for folder in (support / "kind0", query / "kind0"):
        (folder / "gone.png").symlink_to("nowhere")
        (folder / "round.png").symlink_to("round.png")
        os.mkfifo(folder / "pipe.png")
        (folder / "0.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
        (folder / os.fsdecode(b"\xff.png")).write_bytes(b"torn")
    files = ["--support", str(support), "--query", str(query), "--json", str(tmp_path / "out.json")]
    assert main(["predict", str(place / "run"), *files]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    names = [Path(row["file"]).name for row in found["skipped"]]
    assert sorted(names) == sorted(2 * ["broken.png", "gone.png", "pipe.png", "round.png", "\\xff.png"])
    shown = capfd.readouterr()
    assert "caf\\xe9.png" in shown.out and "pipe.png" in shown.err
    assert main(["data", "check", f"folder:{support}", "--data-root", str(tmp_path / "root")]) == 2
    assert "too few" in capfd.readouterr().err
    (tmp_path / "in").mkdir()
    support.rename(tmp_path / "in" / "train")
    assert main(["data", "check", f"folder:{tmp_path / 'in'}", "--data-root", str(tmp_path / "root")]) == 0
    shown = capfd.readouterr().out
    assert "train: 3 classes, 9 images" in shown and "\\xff.png" in shown and "gone.png" in shown


def test_demo_reports_both_styles_and_resumes(tmp_path, monkeypatch, capsys):
    small = load_config("demo").to_dict()
    small["outer"] |= {"iterations": 2, "meta_batch": 1, "warmup": 1}
    small["pretrain"] |= {"iterations": 2, "batch": 8}
    small["backbone"]["width"] = 4
    small["evaluation"] |= {"every": 2, "episodes": 2}
    monkeypatch.setattr(cli_demo, "load_config", lambda name: Config.from_dict(small))
    for _ in range(2):
        assert main(["demo", "--run-dir", str(tmp_path / "demo"), "--episodes", "4"]) == 0
        shown = capsys.readouterr().out
        for part in ("known styles", "unseen styles", "before adaptation", "after the task encoder"):
            assert part in shown
        assert "after inner step" in shown and " ± " in shown and str(tmp_path / "demo") in shown
    test = RunDirectory(tmp_path / "demo").read_results()["test"]
    for found in test.values():
        assert f"{found['gain_by_step'][-1]:+.2f} ± {found['gain_ci95_by_step'][-1]:.2f}" in shown
    assert test["unseen styles"]["style"] == "unseen-strokes"


def test_version_stands_in_one_place(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"metafilm {metafilm.__version__}\n"
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert "version" not in project["project"] and "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "metafilm/__init__.py"


@pytest.mark.parametrize("action", ["list", "prepare", "check"])
def test_help_of_each_action_on_data(action, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["data", action, "--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0 and f"usage: metafilm data {action}" in shown
    assert ("NAME" in shown) == (action != "list")


def test_help_of_every_command(capsys):
    for command in ("demo", "train", "sweep", "ablate", "eval", "predict", "data"):
        with pytest.raises(SystemExit) as caught:
            parse([command, "--help"])
        assert caught.value.code == 0 and f"metafilm {command}" in capsys.readouterr().out


def test_options_are_spelled_with_hyphens(capsys):
    """In help, and wherever a message or a page names one."""
    for command in ("demo", "train", "sweep", "ablate", "eval", "predict", "data"):
        with pytest.raises(SystemExit):
            parse([command, "--help"])
        assert not re.findall(r"--[a-z.-]*_[a-z_]*", capsys.readouterr().out)
    home = Path(__file__).parents[3]
    for file in [*home.glob("metafilm/**/*.py"), *home.glob("docs/*.md"), home / "README.md"]:
        assert not re.findall(r"--[a-z.-]*[a-z]_[a-z_]*", file.read_text(encoding="utf-8")), file


def test_true_and_false_are_words_unless_a_setting_is_one_of_them():
    words = ["--inner.gate", "true", "--inner.per_step", "false", "--name", "true"]
    command = parse(["train", "demo", *words, "--episodes.within-group", "true", "--run-dir", "false"])
    settings = command.settings
    assert settings.inner.gate is True and settings.inner.per_step is False and settings.name == "true"
    assert settings.episodes.within_group is True and command.run_dir == Path("false")
    command = parse(["predict", "false", "--support", "true", "--query", "false"])
    assert (command.run_or_name, command.support, command.query) == ("false", Path("true"), Path("false"))


def test_a_wrong_data_set_is_named_by_the_option_that_gave_it(place, capsys):
    assert main(["eval", str(place / "run"), "--dataset", "omniglt"]) == 2
    assert "--data.name" not in capsys.readouterr().err


def test_python_m_and_light_imports():
    """`import metafilm` and the command line's own start leave the heavy packages alone."""
    script = (
        "import sys, metafilm, episodes, metafilm.cli.commands\n"
        "heavy = {'learn2learn', 'wandb', 'matplotlib', 'sklearn', 'torchvision', 'PIL', 'pooch', 'optuna'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    home = Path(__file__).parents[3]
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=home
    )
    assert shown.stdout == "[]\n"
    shown = subprocess.run(
        [sys.executable, "-m", "metafilm", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=home,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert "usage: metafilm" in shown.stdout


@pytest.mark.filterwarnings("always:.*strokes on a light ground:UserWarning")
def test_dark_ink_on_white_paper_is_noticed_and_mended(tmp_path, capsys):
    """Black characters on white, given to weights of white characters on black, score as if inverted."""
    pool = episodes.load("strokes", "val")
    for number in range(3):
        for drawing in range(4):
            image = 255 - pool.images[20 * number + drawing, 0].numpy()
            folder = tmp_path / ("support" if drawing < 2 else "query") / f"class{number}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{drawing}.png")
    words = ["predict", "omniglot-conv4", "--support", str(tmp_path / "support")]
    words += ["--query", str(tmp_path / "query"), "--json", "-"]
    assert main(words) == 0
    shown = capsys.readouterr()
    mended = json.loads(shown.out)
    assert "warning: the 6 pictures look like dark strokes on a light ground" in shown.err
    assert main([*words, "--invert", "yes"]) == main([*words, "--invert", "no"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    told, left = (json.loads(text) for text in shown.out.replace("}\n{", "}\0{").split("\0"))
    assert mended["inverted"] and told["inverted"] and not left["inverted"]
    assert mended["predictions"] == told["predictions"] != left["predictions"]
