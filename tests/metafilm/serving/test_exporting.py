"""A task's network as a file: read without metafilm, it says what the task says."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from metafilm import MetaFiLM, MetafilmError, Task
from metafilm.backbones import MLP, Conv4
from metafilm.heads import PrototypeHead, RegressionHead
from metafilm.serving import Exported, export, onnxfile, require_exportable
from metafilm.serving.description import described

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
SHAPE = (1, 16, 16)

READ = """
import json, sys
import numpy as np
file, pictures, out = sys.argv[1:]
images = np.load(pictures)
if file.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(None, {"images": images})
    said = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert "torch" not in sys.modules
else:
    import torch
    extra = {"metafilm.json": ""}
    network = torch.export.load(file, extra_files=extra).module()
    logits, probabilities = (part.numpy() for part in network(torch.from_numpy(images)))
    said = json.loads(extra["metafilm.json"])
assert not any(name.split(".")[0] in ("metafilm", "episodes") for name in sys.modules)
np.savez(out, logits=logits, probabilities=probabilities)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def task() -> Task:
    """Of a learner with statistics of its own to normalise by, and deviations far from 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = MetaFiLM(
            *built(Conv4(SHAPE, 8, "support"), PrototypeHead(0.5)), image_shape=SHAPE, mean=[0.1], std=[0.3]
        ).eval()
        images, labels = torch.rand(6, *SHAPE), ["b", "a", "c"] * 2
        task = learner.adapt(images, labels)
        for value in task.film.values():
            value += 0.2 * torch.randn(value.shape)
    return task


def built(backbone, head):
    from metafilm import film

    return film.insert(backbone), head


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_a_fresh_process_without_metafilm_says_the_same(task, suffix, tmp_path) -> None:
    file, pictures, out = tmp_path / f"net.{suffix}", tmp_path / "x.npy", tmp_path / "out.npz"
    support = torch.rand(6, *SHAPE)
    found = export(task, file, support)
    assert found == Exported(file, file.stat().st_size, found.largest_difference, 14)
    assert found.largest_difference <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "nothing is left beside it"
    images = torch.rand(5, *SHAPE)
    np.save(pictures, images.numpy())
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file), str(pictures), str(out)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    read = np.load(out)
    assert np.abs(read["logits"] - task.logits(images).numpy()).max() <= 1e-4
    np.testing.assert_allclose(read["probabilities"], task.predict_proba(images).numpy(), atol=1e-5)
    said = json.loads(done.stdout)
    assert said == described(task)
    assert said["classes"] == task.classes == ["a", "b", "c"] and said["image_shape"] == [1, 16, 16]
    assert (
        said["channels"] == "grey"
        and said["value_range"] == [0.0, 1.0]
        and said["polarity"] == "light on dark"
    )
    mean, std = (pytest.approx(value) for value in ([0.1], [0.3]))
    assert said["normalisation"] == {"inside": True, "mean": mean, "std": std}
    if suffix == "onnx":
        model = onnx.load(file)
        onnx.checker.check_model(model)
        (given,) = model.graph.input
        assert given.name == "images" and given.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert [value.name for value in model.graph.output] == ["logits", "probabilities"]


def test_a_task_alone_is_as_it_saves_itself(task, tmp_path) -> None:
    found = export(task, tmp_path / "task.safetensors")
    assert found.largest_difference is None and found.images == 0
    task.save(tmp_path / "saved.safetensors")
    assert found.path.read_bytes() == (tmp_path / "saved.safetensors").read_bytes()


def test_a_regression_task_gives_values(tmp_path) -> None:
    learner = MetaFiLM(
        *built(MLP(1, (8, 8), "tanh"), RegressionHead(8)), image_shape=(1,), evaluation_steps=0
    ).eval()
    task = learner.adapt(torch.rand(5, 1), torch.rand(5, 1))
    export(task, tmp_path / "curve.pt2")
    extra = {"metafilm.json": ""}
    network = torch.export.load(tmp_path / "curve.pt2", extra_files=extra).module()
    x = torch.rand(7, 1)
    torch.testing.assert_close(network(x), (task.predict(x),))
    assert json.loads(extra["metafilm.json"])["value_range"] is None


def test_other_suffixes_missing_packages_and_labels_are_refused(task, tmp_path, monkeypatch) -> None:
    with pytest.raises(MetafilmError, match=r"net.pth: .*'.pth' is none of .pt2, .onnx, .safetensors"):
        require_exportable(tmp_path / "net.pth")
    find = onnxfile.importlib.util.find_spec
    monkeypatch.setattr(
        onnxfile.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(MetafilmError, match=r'need onnxruntime: pip install "metafilm\[onnx\]"'):
        export(task, tmp_path / "net.onnx")
    odd = Task(task.learner, task.film, task.state, task.statistics, [(1, 2), "a", "b"])
    with pytest.raises(MetafilmError, match="can't be written as JSON"):
        export(odd, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_would_say_something_else_is_not_written(task, tmp_path, monkeypatch) -> None:
    def off(content: bytes):
        network = torch.export.load(io.BytesIO(content)).module()
        return lambda images: network(images)[0] + 0.1

    monkeypatch.setattr("metafilm.serving.exporting._runner", off)
    with pytest.raises(MetafilmError, match=r"net.pt2 was not written: its logits would differ .* 1.0e-01"):
        export(task, tmp_path / "net.pt2")
    with pytest.raises(MetafilmError, match="ONNX Runtime refuses the network"):
        onnxfile.runner(b"no network")
    assert not list(tmp_path.iterdir())
