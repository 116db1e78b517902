"""`metafilm export`: from a folder of pictures to a network that runs without metafilm."""

import json

import pytest
import torch

from metafilm import Task
from metafilm.cli import main
from metafilm.cli.predict import read_pictures

pytest.importorskip("onnxruntime")
SIZE = 16  # of the run's pictures


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "safetensors"])
def test_from_pictures_to_a_network(place, pictures, tmp_path, capsys, suffix) -> None:
    support, query = pictures
    out = tmp_path / f"net.{suffix}"
    assert main(["export", str(place / "run"), "--support", str(support), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert f"skipped {support / 'kind0' / 'broken.png'}" in shown.err
    lines = shown.out.splitlines()
    assert lines[0] == "9 pictures of 3 classes: kind0, kind1, kind2"
    assert lines[-1].startswith(f"written to {out}, ")
    if suffix != "safetensors":
        assert "largest difference of logits on 17 images, support and random: " in lines[-1]
        assert float(lines[-1].split()[-1]) <= 1e-4
    # the same as `metafilm predict` says
    file = tmp_path / "out.json"
    assert main(["predict", str(place / "run"), "--support", str(support), "--query", str(query),
                 "--json", str(file)]) == 0  # fmt: skip
    rows = json.loads(file.read_text())["predictions"]
    images = read_pictures(query, 3, SIZE)[1].float() / 255
    if suffix == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(["probabilities"], {"images": images.numpy()})[0])
        said = session.get_modelmeta().custom_metadata_map
        assert json.loads(said["classes"]) == ["kind0", "kind1", "kind2"]
        assert json.loads(said["learner"]) == str(place / "run")
    else:
        found = Task.load(out).predict_proba(images)
    for row, probabilities in zip(rows, found, strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(probabilities.tolist(), abs=1e-5)


def test_what_can_not_be_written_is_said_before_the_work(place, pictures, tmp_path, capsys) -> None:
    support, _ = pictures
    command = ["export", str(place / "run"), "--support", str(support), "--out"]
    assert main([*command, str(tmp_path / "net.pkl")]) == 2
    assert "'.pkl' is none of .pt2, .onnx, .safetensors" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "none" / "net.pt2")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "net.pt2"), "--image-size", "32"]) == 2
    assert "--image-size: for lite0" in capsys.readouterr().err
