"""What is shipped: the wheel is the two packages and the configurations, whole, and nothing else."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import metafilm
from scripts import installation as packaging

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("metafilm", "episodes")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist, built by the installed hatchling: no network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install hatchling")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return out


def in_checkout() -> set[str]:
    """Where each file of the packages and each configuration must lie in the wheel."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    found = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    return found | configurations()


def configurations() -> set[str]:
    return {f"metafilm/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}


def test_the_wheel_holds_the_packages_whole_and_nothing_else(built) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        other = {name for name in names if not name.endswith(".py")}
        for name in other - configurations():
            assert wheel.read(name) == (ROOT / name).read_bytes(), name
    assert names == in_checkout()
    assert {Path(name).suffix for name in other} >= {".yaml", ".safetensors", ".c", ".h", ".typed"}


def test_the_wheel_says_what_it_is(built) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        folder = f"metafilm-{metafilm.__version__}.dist-info"
        said = message_from_string(wheel.read(f"{folder}/METADATA").decode())
        assert said["Version"] == metafilm.__version__ and said["License-Expression"] == "MIT"
        assert f"{folder}/licenses/LICENSE" in wheel.namelist()
        assert "metafilm = metafilm.cli:main" in wheel.read(f"{folder}/entry_points.txt").decode()


def test_the_sdist_holds_what_its_tests_and_pages_read(built) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        linked = set(re.findall(r"\]\(([^)#:]+)\)", text))
        missing = {to for to in linked if to not in names and not any(n.startswith(f"{to}/") for n in names)}
        assert not missing, page
    assert {"tests/conftest.py", "scripts/installation.py", "Makefile"} <= names


def test_the_version_stands_in_one_place() -> None:
    assert packaging.version_here() == metafilm.__version__
    assert re.search(rf"^## {re.escape(metafilm.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in pyproject and f'"{metafilm.__version__}"' not in pyproject


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_without_a_python_there_is_nothing_to_say(capsys) -> None:
    assert packaging.find("3.99") is None
    assert packaging.main(packaging.parsed(["--python", "3.99"])) == 1
    assert "Python 3.99: not found here, left out" in capsys.readouterr().out


def test_a_python_is_asked_its_version(tmp_path, monkeypatch) -> None:
    """pyenv's python3.13 is a script that fails where no 3.13 is chosen; a link may lead to another."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for version in ("3.99", here):
        link = tmp_path / "versions" / f"{version}.1" / "bin" / "python"
        link.parent.mkdir(parents=True)
        link.symlink_to(sys.executable)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert packaging.find("3.99") is None
    assert packaging.find(here) == link


def test_a_step_that_fails_is_named_and_fails_the_whole(tmp_path, monkeypatch, capsys) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    broken = tmp_path / "metafilm-0-py3-none-any.whl"
    broken.write_bytes(b"no archive")
    monkeypatch.setattr(packaging, "find", lambda version: Path(sys.executable))
    monkeypatch.setattr(packaging, "build", lambda *_: (broken,))
    assert packaging.main(packaging.parsed(["--python", "3.11"])) == 1
    shown = capsys.readouterr()
    assert "| 3.11 | wheel |" in shown.out and "| failed: installation |" in shown.out
    assert "3.11, wheel: installation:" in shown.err
