"""`metafilm report` and `metafilm predict --report`, as one types them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from episodes.files.images import read_image
from metafilm.app.strokes import ink
from metafilm.cli import main
from metafilm.report.page.pictures import thumbnail
from metafilm.report.predictions import THUMB


@pytest.fixture
def run(place, tmp_path):
    """A copy of the trained run, for a report of its own."""
    shutil.copytree(place / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_gets_its_page(run, place, capsys):
    assert main(["report", str(run), "--episodes", "4", "--data-root", str(place / "root")]) == 0
    shown = capsys.readouterr()
    assert f"written to {run / 'report.html'}" in shown.out and not shown.err
    text = (run / "report.html").read_text()
    assert "4 3-way 1-shot tasks of the val split" in text and "kind8" in text and "Validation" in text
    assert "All settings of the run" in text and "best validation" in text


def test_without_data_or_without_tasks_there_are_still_curves(run, place, tmp_path, capsys):
    out = tmp_path / "page.html"
    words = ["report", str(run), "--out", str(out), "--data-root", str(place / "root")]
    assert main([*words, "--split", "nowhere"]) == 0
    assert "No tasks were scored: " in capsys.readouterr().out and "Outer loss" in out.read_text()
    assert main([*words, "--episodes", "0"]) == 0
    assert "as --episodes 0 asks" in out.read_text()
    (run / "model.safetensors").unlink()
    assert main(words) == 0
    assert "There are no weights yet" in out.read_text()
    (run / "model.safetensors").write_bytes(b"no weights")
    assert main(words) == 0
    assert "No tasks were scored: " in out.read_text()


def test_weights_alone_are_scored_on_a_data_set_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["report", "omniglot-conv4", "--dataset", "strokes", "--episodes", "3", "--ways", "3"]
    assert main(words) == 0
    assert "weights alone" in capsys.readouterr().out
    assert "3 3-way 1-shot tasks" in (tmp_path / "omniglot-conv4-report.html").read_text()


def test_classes_that_the_weights_know_are_told(run, place, capsys):
    words = ["report", str(run), "--split", "train", "--episodes", "3", "--data-root", str(place / "root")]
    assert main(words) == 0
    said = "classes were trained on: this accuracy is not one on new classes."
    assert said in capsys.readouterr().out and said in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing-there"], "neither a run directory"),
        (["omniglot-conv4", "--episodes", "1"], "--episodes 1 gives no interval"),
        (["omniglot-conv4", "--episodes", "-1"], "--episodes must be at least 0"),
        (["omniglot-conv4", "--out", "-"], "can't be printed: name a file"),
        (["omniglot-conv4", "--out", "/nowhere/at/all.html"], "there is no folder"),
    ],
)
def test_bad_requests_are_one_error(words, said, capsys):
    assert main(["report", *words]) == 2
    assert said in capsys.readouterr().err


def test_predictions_get_a_page(place, pictures, tmp_path, capsys):
    support, query = pictures
    odd = support / "<script>alert(1)"
    shutil.copytree(support / "kind1", odd)
    out = tmp_path / "said.html"
    words = ["predict", str(place / "run"), "--support", str(support), "--query", str(query)]
    assert main([*words, "--report", str(out)]) == 0
    assert f"written to {out}" in capsys.readouterr().err
    text = out.read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert text.count('class="thumb large"') == 10  # nine in class folders, a loose one
    assert text.count("nearest example: ") == 10 and "broken.png" in text
    sure = [float(value) for value in re.findall(r'said">[^<]+</span> ([\d.]+) %', text)]
    assert sure == sorted(sure)


def test_the_page_shows_the_pictures_that_were_named(place, pictures, tmp_path, monkeypatch):
    """Also where a file can be read in colour alone, so that it was skipped."""
    support, query = pictures

    def read(path, channels, size, *more):
        if path.parent.name == "kind0" and path.name == "0.png" and size != THUMB:
            raise OSError("not in this form")
        return read_image(path, channels, size, *more)

    monkeypatch.setattr("episodes.datasets.folder.read_image", read)
    monkeypatch.setattr("metafilm.cli.predict.read_image", read)
    out, file = tmp_path / "said.html", tmp_path / "said.json"
    words = ["predict", str(place / "run"), "--support", str(support), "--query", str(query)]
    assert main([*words, "--report", str(out), "--json", str(file)]) == 0
    text, rows = out.read_text(), json.loads(file.read_text())["predictions"]
    assert len(rows) == 9
    for row in rows:
        picture = torch.from_numpy(read_image(Path(row["file"]), 3, THUMB))
        assert str(thumbnail(picture, f"picture {row['file']}", "large")) in text
    for example in sorted(support.glob("kind*/[0-9].png")):
        picture = torch.from_numpy(read_image(example, 3, THUMB))
        shown = str(thumbnail(picture, f"example of {example.parent.name}")) in text
        assert shown == (example != support / "kind0" / "0.png")


def test_a_picture_of_none_of_the_classes_is_called_so(tmp_path, capsys):
    strokes = {
        "cross": [[(0.5, 0.2), (0.5, 0.8)], [(0.3, 0.5), (0.7, 0.5)]],
        "bar": [[(0.2, 0.5), (0.8, 0.5)]],
    }
    for name, drawn in strokes.items():
        (tmp_path / "s" / name).mkdir(parents=True)
        Image.fromarray(ink(drawn, 105)).save(tmp_path / "s" / name / "1.png")
    (tmp_path / "q").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (105, 105), np.uint8)
    Image.fromarray(noise).save(tmp_path / "q" / "noise.png")
    Image.fromarray(ink(strokes["bar"], 105)).save(tmp_path / "q" / "bar.png")
    words = ["predict", "omniglot-conv4", "--support", str(tmp_path / "s"), "--query", str(tmp_path / "q")]
    assert main([*words, "--reject", "0.02", "--report", str(tmp_path / "said.html")]) == 0
    text = (tmp_path / "said.html").read_text()
    assert text.count('said">none of the classes') == 1 and text.count('said">bar') == 1
    assert "2 % false alarms" in text


def test_the_nearest_example_is_the_nearest(place, pictures, tmp_path):
    from metafilm import MetaFiLM
    from metafilm.report import nearest

    learner = MetaFiLM.from_pretrained(str(place / "run"))
    images = torch.rand(6, *learner.image_shape, generator=torch.Generator().manual_seed(0))
    task = learner.adapt(images, list("aabbcc"))
    moved = (images + 0.01).clamp(0, 1)
    assert nearest(task, images, moved) == list(range(6))
