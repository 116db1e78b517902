"""`metafilm train`: nothing is written before the data are there, nor trained before it can be kept."""

import errno
import os
from dataclasses import replace

import pytest
import yaml
from PIL import Image

from metafilm.cli import main
from metafilm.cli import train as cli_train
from metafilm.config.config import Config
from metafilm.storage import atomic
from metafilm.storage.run import RunDirectory

pytestmark = pytest.mark.filterwarnings("ignore:.*overfits its training classes:UserWarning")


def test_a_try_that_fails_on_the_data_leaves_no_run(place, tmp_path, capsys):
    run = tmp_path / "new" / "run"
    arguments = ["train", str(place / "tiny.yaml"), "--data-root", str(place / "root"), "--run-dir", str(run)]
    assert main([*arguments, "--episodes.ways", "9"]) == 2
    assert "8 classes, but 9 ways" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main([*arguments, "--data.name", "folder:/nowhere"]) == 2
    assert not (tmp_path / "new").exists()
    assert main([*arguments, "--episodes.ways", "4", "--evaluation.ways", "3"]) == 0


@pytest.mark.parametrize("change", [{"validation_split": "train"}, {"scheme": "all"}])
def test_validation_on_training_classes_is_refused_unless_asked_for(place, tmp_path, capsys, change):
    settings = yaml.safe_load((place / "tiny.yaml").read_text())
    settings["data"] |= change
    if "scheme" in change:
        settings["data"]["name"] = f"folder:{place / 'pictures' / 'train'}"
    (tmp_path / "leaky.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["train", str(tmp_path / "leaky.yaml"), "--data-root", str(place / "root")]
    arguments += ["--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and "8 of the 8 classes" in shown and "allow" in shown
    assert not (tmp_path / "run").exists()
    (tmp_path / "leaky.yaml").write_text(
        yaml.safe_dump(settings | {"data": settings["data"] | {"allow_overlap": True}})
    )
    assert main(arguments) == 0


def test_what_gains_nothing_is_left_out(place, tmp_path, capsys):
    """Steps of no size at all."""
    useless = "--encoder.enabled False --inner.step-size 1e-12 --inner.learn-step-size False".split()
    for name, adapt in (("auto", "never"), ("always", "always"), ("never", "never")):
        run, common = tmp_path / name, ["--data-root", str(place / "root")]
        words = [str(place / "tiny.yaml"), "--evaluation.adapt", name, "--run-dir", str(run)]
        assert main(["train", *words, *useless, *common]) == 0
        shown = capsys.readouterr().out
        assert ("by itself the learner does not adapt" in shown) is (name == "auto")
        assert RunDirectory(run).read_results()["adapt"] == adapt
        assert main(["eval", str(run), "--episodes", "3", *common]) == 0
        assert ("as it adapts by itself" in capsys.readouterr().out) is (adapt == "never")


@pytest.mark.parametrize("split", [True, False])
def test_readmes_command_trains_on_a_folder_of_pictures(tmp_path, monkeypatch, split, capsys):
    """The least that configs/pictures.yaml asks for: 29 classes, or 5 a split, of 10 pictures each."""
    parts = [f"{part}/" for part in ("train", "val", "test") for _ in range(5)] if split else [""] * 29
    for kind, part in enumerate(parts):
        folder = tmp_path / "mine" / f"{part}kind {kind}"
        folder.mkdir(parents=True)
        for seed in range(10):
            picture = Image.new("RGB", (20 + seed, 30), (8 * kind, 20 * seed, 99))
            picture.save(folder / f"{seed}.{'jpg' if seed % 2 else 'png'}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAFILM_DATA", str(tmp_path / "root"))
    quick = "--outer.iterations 2 --backbone.width 4 --encoder.width 4 --evaluation.episodes 2"
    assert main(["train", "pictures", "--data.name", f"folder:{tmp_path / 'mine'}", *quick.split()]) == 0
    assert main(["eval", "runs/pictures", "--episodes", "2"]) == 0
    assert "5-way 5-shot" in capsys.readouterr().out


def test_an_unusable_run_directory_is_refused_before_the_data_are_read(place, tmp_path, monkeypatch, capsys):
    def open_data(*_):
        raise AssertionError("read the data first")

    monkeypatch.setattr(cli_train, "open_data", open_data)
    arguments = ["train", str(place / "tiny.yaml"), "--data-root", str(place / "root"), "--run-dir"]
    (tmp_path / "file").write_text("")
    assert main([*arguments, str(tmp_path / "file")]) == 2
    assert main([*arguments, str(tmp_path / "file" / "run")]) == 2
    assert main([*arguments, "/proc/no/run"]) == 2  # nobody can make a folder there, root neither
    assert main([*arguments, str(place / "run"), "--seed", "9"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 4 and shown.count("can't write there") == 3
    assert "--seed is 9, was 0" in shown


def test_looking_changes_nothing(tmp_path):
    config = Config()
    RunDirectory(tmp_path / "run").require_usable(config)
    assert list(tmp_path.iterdir()) == []
    with RunDirectory.open(tmp_path / "run", config):
        before = sorted(path.name for path in (tmp_path / "run").iterdir())
        RunDirectory(tmp_path / "run").require_usable(replace(config, threads=3))
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


@pytest.mark.parametrize("call", [3, 4, 5])
def test_a_disk_that_fills_up_in_training_is_one_line(place, tmp_path, monkeypatch, capsys, call):
    """Files of a run in their order: settings, cut metrics, weights, checkpoint."""
    calls = []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    run = tmp_path / "run"
    arguments = ["train", str(place / "tiny.yaml"), "--data-root", str(place / "root"), "--run-dir", str(run)]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {run}/") and "No space left on device; make room" in line
    monkeypatch.undo()
    assert main(arguments) == 0
