"""Files are refused before the work, names of any bytes are printed, errors of the system are one line."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from metafilm.cli import eval as cli_eval
from metafilm.cli import main
from metafilm.cli import predict as cli_predict
from metafilm.cli.text.output import require_apart, require_task_file, require_writable
from metafilm.errors import MetafilmError
from metafilm.storage.calibration import read_calibration

HOME = Path(__file__).parents[3]


def metafilm(*arguments: str, **how) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "metafilm", *arguments]
    return subprocess.run(command, cwd=HOME, check=False, **({"capture_output": True} | how))


@pytest.fixture
def no_work(monkeypatch):
    def work(*_, **__):
        raise AssertionError("worked before the output file was looked at")

    monkeypatch.setattr(cli_eval, "records", work)
    monkeypatch.setattr(cli_predict, "predict", work)


@pytest.mark.parametrize("option", ["--json", "--save-task"])
@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("FOLDER", "it is a folder; name a file in it"),
        ("/proc/x.json", "choose another place"),  # read-only for root too
        ("/dev/null", "it is no plain file; use - for standard output"),
    ],
)
def test_output_files_are_looked_at_before_the_work(no_work, option, file, expected, tmp_path, capsys):
    file = str(tmp_path) if file == "FOLDER" else file
    predict = ["predict", "omniglot-conv4", "--support", "x", "--query", "x", option, file]
    commands = [predict] + [["eval", "omniglot-conv4", option, file]] * (option == "--json")
    for arguments in commands:
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: can't write {file}: ") and expected in line


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["predict", "--query", "x", "--support", "x"], "--save-task"),
        (["predict", "--query", "x", "--support", "x"], "--json"),
        (["predict", "--query", "x", "--support", "x"], "--report"),
        (["adapt", "--support", "x"], "--out"),
        (["adapt", "--support", "x"], "--json"),
        (["export", "--support", "x"], "--out"),
        (["eval"], "--json"),
        (["report"], "--out"),
    ],
)
def test_what_is_read_is_not_written_over(no_work, words, option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    weights = run / "model.safetensors"
    weights.write_bytes(b"weights")
    (tmp_path / "link.safetensors").symlink_to(weights)
    for read in (run, weights, "run/model.safetensors"):
        for written in (str(weights), "run/../run/model.safetensors", "link.safetensors"):
            assert main([words[0], str(read), *words[1:], option, written]) == 2
            assert f"can't write {written}: it is what is read here; name another" in capsys.readouterr().err
    assert weights.read_bytes() == b"weights"
    for name in ("results.json", "metrics.jsonl", "chunks.json", "checkpoint.previous.pt", "config.yaml"):
        (run / name).write_text("kept")
        assert main([words[0], str(run), *words[1:], option, str(run / name)]) == 2, name
        said = capsys.readouterr().err
        assert "it is what is read here" in said or "a task is written as a .safetensors file" in said
    other = ["adapt", "timm:x", "--support", "x", "--weights", str(weights), "--out", str(weights)]
    assert main(other) == 2 and "it is what is read here" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MetafilmError, match="Permission denied"):
        require_writable(tmp_path / "x.json")


def test_looking_leaves_nothing(tmp_path):
    require_writable(tmp_path / "x.json")
    require_writable(Path("-"))
    require_writable(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "permissions"), (errno.EROFS, "only be read"), (errno.ENOSPC, "make room"), (5, "place")],
)
def test_errors_of_the_system_are_one_line(monkeypatch, capsys, number, advice):
    def work(*_, **__):
        raise OSError(number, os.strerror(number), "/some/file")

    monkeypatch.setattr(cli_eval, "records", work)
    assert main(["eval", "omniglot-conv4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: /some/file: {os.strerror(number)}; ") and advice in line
    with pytest.raises(OSError):
        main(["eval", "omniglot-conv4", "--debug"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_standard_output_that_takes_nothing():
    with open("/dev/full", "wb") as full:
        found = metafilm("data", "list", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert found.returncode == 2
    assert found.stderr.startswith(b"error: standard output") and found.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    found = metafilm("data", "list", stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    assert (found.returncode, found.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "RUN", "--support", "S", "--query", "Q", "--json", "A", "--save-task", "B.safetensors"],
        ["predict", "RUN", "--support", "S", "--query", "Q", "--json", "-", "--report", "A"],
        ["adapt", "RUN", "--support", "S", "--query", "Q", "--json", "A", "--out", "B.safetensors"],
        ["eval", "RUN", "--episodes", "3", "--json", "A"],
        ["export", "RUN", "--support", "S", "--out", "A.safetensors"],
    ],
    ids=["predict", "page", "adapt", "eval", "export"],
)
def test_files_are_written_where_nobody_reads_what_is_printed(
    place, pictures, tmp_path, monkeypatch, capsys, words
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "root", tmp_path / "root")
    nobody_reads(monkeypatch)
    names = {"RUN": str(place / "run"), "S": str(pictures[0]), "Q": str(pictures[1])}
    words = [names.get(word, word) for word in words]
    data = ["--data-root", str(tmp_path / "root")] if words[0] == "eval" else []
    assert main([*words, *data]) == 0
    for name in ("A", "B.safetensors", "A.safetensors"):
        assert (tmp_path / name).is_file() == (name in words)


def test_a_calibration_is_kept_where_nobody_reads_of_it(place, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(place / "run", tmp_path / "run")
    nobody_reads(monkeypatch)
    words = ["calibrate", str(run), "--shots", "1", "--episodes", "5", "--data-root", str(place / "root")]
    assert main(words) == 0
    assert read_calibration(run / "model.safetensors") is not None


def nobody_reads(monkeypatch) -> None:
    """Standard output is a pipe whose reader has left."""

    def gone(*_, file=None, **__) -> None:
        if file is None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    for module in ("predict", "adapt", "eval", "export", "calibrate", "text.table"):
        monkeypatch.setattr(f"metafilm.cli.{module}.print", gone, raising=False)


def test_names_that_are_no_text_are_shown_with_backslashes(place, tmp_path):
    """Pictures, their folders and what is written, named in Latin-1, on standard output and in an error."""
    for part in (b"support", b"query"):
        for kind, name in enumerate((b"cafe", b"plain") if part == b"support" else (b"caf\xe9", b"plain")):
            folder = os.fsencode(tmp_path) + b"/" + part + b"/" + name
            os.makedirs(folder)
            for seed in range(2):
                Image.new("L", (16, 16), 200 * kind).save(os.fsdecode(folder + b"/%d.png" % seed))
    (tmp_path / "query" / os.fsdecode(b"bro\xefken.png")).write_bytes(b"no picture")
    run = str(place / "run")
    common = ["predict", run, "--support", str(tmp_path / "support"), "--query", str(tmp_path / "query")]
    kept = [
        f"--{option}={tmp_path / os.fsdecode(name)}"
        for option, name in (("json", b"r\xe9.json"), ("save-task", b"t\xe9.safetensors"))
    ]
    found = metafilm(*common, *kept)
    assert found.returncode == 0, found.stderr
    assert re.search(rb"caf\\(udc|x)e9", found.stdout) and re.search(rb"bro\\(udc|x)efken", found.stderr)
    assert (tmp_path / os.fsdecode(b"r\xe9.json")).is_file()
    record = ["--json", str(tmp_path / os.fsdecode(b"r\xe9.json"))]
    scored = metafilm("eval", run, "--episodes", "2", "--data-root", str(place / "root"), *record)
    assert scored.returncode == 0 and rb"r\udce9.json" in scored.stdout, scored.stderr
    weights = tmp_path / os.fsdecode(b"w\xe9.safetensors")
    weights.write_bytes((place / "run" / "model.safetensors").read_bytes())
    refused = metafilm("eval", str(weights))
    assert refused.returncode == 2 and b"the name is no UTF-8" in refused.stderr
    missing = metafilm(*common[:-1], os.fsdecode(b"/no/caf\xe9"))
    assert missing.returncode == 2 and re.search(rb"/no/caf\\(udc|x)e9", missing.stderr)
    assert b"Traceback" not in found.stderr + missing.stderr


def test_one_file_for_two_things(tmp_path) -> None:
    require_apart(Path("-"), None, Path("-"), tmp_path / "a", tmp_path / "b")
    with pytest.raises(MetafilmError, match=r"same.json is named for two things; name two files"):
        require_apart(tmp_path / "same.json", None, tmp_path / "same.json")


def test_a_task_file_by_its_name(tmp_path) -> None:
    require_task_file(None)
    require_task_file(tmp_path / "a.safetensors")
    with pytest.raises(MetafilmError, match=r"not as .*a.json; such as task.safetensors"):
        require_task_file(tmp_path / "a.json")
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(MetafilmError, match=r"it is a folder; name a file in it, such as .*task.safetensors"):
        require_task_file(tmp_path / "b.safetensors")
