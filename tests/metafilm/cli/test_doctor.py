"""The doctor's findings, against what is known to be there."""

import platform

import pytest
import torch

import episodes
from metafilm.cli import doctor, main
from metafilm.engine.native import Status


def findings(capsys, root) -> dict[str, str]:
    assert main(["doctor", "--data-root", str(root)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return {
        title.strip(): found.strip()
        for title, _, found in (line.partition(":") for line in shown.out.splitlines())
    }


def test_versions_and_processor(capsys, tmp_path, monkeypatch) -> None:
    installed = {"torch": torch.__version__, "metafilm": "0.1"}
    monkeypatch.setattr(doctor, "_version", installed.get)
    found = findings(capsys, tmp_path)
    assert found["python"].startswith(platform.python_version())
    assert found["torch"] == torch.__version__ and found["torchvision"] == "not installed"
    assert found["learn2learn"] == found["wandb"] == "not installed (optional)"
    assert found["threads"].startswith(str(torch.get_num_threads()))
    assert set(found) >= {"processor", "bfloat16", "gpu", "kernels", *episodes.DATASETS}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status(True, "", "/usr/bin/cc"), "on"),
        (Status(False, "it rained", "/usr/bin/cc", fault=True), "off: it rained"),
    ],
)
def test_the_kernels_and_why_not(capsys, tmp_path, monkeypatch, status, expected) -> None:
    monkeypatch.setattr(doctor.native, "status", lambda: status)
    found = findings(capsys, tmp_path)
    assert found["kernels"] == expected and found["compiler"] == "/usr/bin/cc"


def test_data_sets_by_their_folders(capsys, tmp_path) -> None:
    found = findings(capsys, tmp_path / "nowhere")
    assert found["data root"] == f"{tmp_path / 'nowhere'} (not there yet)"
    assert found["omniglot"].startswith("not there") and found["miniimagenet"].startswith("not there")
    assert found["omniglot-criteria"] == found["omniglot"]
    (tmp_path / "miniimagenet" / "val").mkdir(parents=True)
    (tmp_path / "omniglot" / "images_background").mkdir(parents=True)
    (tmp_path / "omniglot" / "images_evaluation").mkdir()
    found = findings(capsys, tmp_path)
    assert found["miniimagenet"] == "val" and found["omniglot"] == f"in {tmp_path / 'omniglot'}"
    assert found["strokes"].startswith("generated")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"amx_bf16"}, "with AMX"), ({"avx512_bf16"}, "without AMX"), ({"sse2"}, "not in"), (set(), "unknown")],
)
def test_bfloat16(flags, expected) -> None:
    assert expected in doctor._bfloat16(flags)
