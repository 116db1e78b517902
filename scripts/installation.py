"""Does what is shipped install and run where nothing else is? `python scripts/installation.py`.

Builds the sdist, and the wheel from it, and installs each into an empty environment of every Python of 3.11,
3.12 and 3.13 found here (on the path, or pyenv's). There, from a folder outside the checkout: the version, an
evaluation on generated characters, and three lines of `FewShotClassifier` on small pictures. Prints a table;
the exit code is 1 where anything failed or no Python was found.

uv builds and installs where it is installed, which takes a minute or two an environment; else venv and pip,
which takes several. PyTorch is installed anew in each, gigabytes of it: all is deleted at the end.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
THREE_LINES = """
import metafilm
from sklearn.datasets import load_digits

pictures, labels = load_digits(n_class=3, return_X_y=True)
few_shot = metafilm.FewShotClassifier("omniglot-conv4").fit(pictures[:15], labels[:15])
score = few_shot.score(pictures[15:75], labels[15:75])
assert score > 0.6, f"{score:.2f} of 60 pictures right, where guessing gives a third"
"""
EVALUATION = "eval omniglot-conv4 --dataset strokes --episodes 4"


@dataclass(frozen=True)
class Row:
    """What came of one file in one Python. `failed`: the step that failed and its last words; empty: none."""

    python: str
    file: str
    seconds: float
    failed: str = ""

    @property
    def outcome(self) -> str:
        """In a word or two."""
        return f"failed: {self.failed.partition(':')[0]}" if self.failed else "works"


class Failed(Exception):
    """A command ended with an error; the message holds the end of what it said."""


def run(*command: str | Path, cwd: Path, seconds: int = 1800) -> str:
    """The command's output, without this checkout's or this environment's modules in its way.

    Raises Failed, with the last lines, upon an exit code or after so many seconds.
    """
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(words[:4])}: not done after {seconds} s") from error
    if done.returncode:
        raise Failed("\n".join((done.stdout + done.stderr).strip().splitlines()[-15:]))
    return done.stdout.strip()


def find(version: str) -> Path | None:
    """A Python of that version that runs: the path's, or pyenv's newest."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = sorted(
        pyenv.glob(f"{version}.*/bin/python"),
        key=lambda path: [int(part) for part in path.parts[-3].split(".") if part.isdigit()],
        reverse=True,
    )
    if on_path := shutil.which(f"python{version}"):
        candidates.insert(0, Path(on_path))
    for python in candidates:
        words = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip() == version:  # pyenv's own scripts may lead nowhere
            return python
    return None


def build(python: Path, out: Path, uv: str | None) -> tuple[Path, Path]:
    """The wheel and the sdist, in `out`; the wheel is built from what the sdist holds. Raises Failed."""
    if uv:
        run(uv, "build", "--quiet", "--python", python, "--out-dir", out, HERE, cwd=out)
    else:
        maker = environment(python, out / "maker", None)
        run(maker, "-m", "pip", "install", "--quiet", "build", cwd=out)
        run(maker, "-m", "build", "--outdir", out, HERE, cwd=out)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def environment(python: Path, at: Path, uv: str | None) -> Path:
    """The interpreter of a new, empty environment. Raises Failed."""
    if uv:
        run(uv, "venv", "--quiet", "--python", python, at, cwd=at.parent)
    else:
        run(python, "-m", "venv", at, cwd=at.parent)
    return at / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def try_out(python: Path, file: Path, version: str, expected: str, uv: str | None) -> Row:
    """Install the file into an empty environment and use it there. `expected`: the version it must say it
    is."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="metafilm-packaging-") as folder:
        at = Path(folder)
        elsewhere = at / "elsewhere"
        elsewhere.mkdir()
        step = "environment"
        try:
            ours = environment(python, at / "environment", uv)
            step = "installation"
            if uv:
                run(uv, "pip", "install", "--quiet", "--python", ours, file, cwd=elsewhere)
            else:
                run(ours, "-m", "pip", "install", "--quiet", file, cwd=elsewhere)
            command = ours.with_name("metafilm" + ours.suffix)
            step = "metafilm --version"
            said = run(command, "--version", cwd=elsewhere, seconds=300)
            if said != f"metafilm {expected}":
                raise Failed(f"says {said!r}, the checkout is {expected}")
            where = run(ours, "-c", "import metafilm; print(metafilm.__file__)", cwd=elsewhere)
            if not Path(where).resolve().is_relative_to(at.resolve()):
                raise Failed(f"imports {where}, not what was installed")
            step = f"metafilm {EVALUATION}"
            run(command, *EVALUATION.split(), cwd=elsewhere, seconds=300)
            step = "three lines"
            run(ours, "-c", THREE_LINES, cwd=elsewhere, seconds=300)
        except Failed as error:
            return Row(version, kind(file), time.perf_counter() - begin, f"{step}: {error}")
    return Row(version, kind(file), time.perf_counter() - begin)


def kind(file: Path) -> str:
    """wheel or sdist."""
    return "wheel" if file.suffix == ".whl" else "sdist"


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="VERSION", help="e.g. 3.12")
    parser.add_argument("--only", choices=["wheel", "sdist"], help="try one of the two files alone")
    parser.add_argument("--pip", action="store_true", help="venv and pip, even where uv is installed")
    return parser.parse_args(words)


def version_here() -> str:
    """The checkout's version, from the one place it stands in."""
    text = (HERE / "metafilm" / "__init__.py").read_text(encoding="utf-8")
    return text.partition('__version__ = "')[2].partition('"')[0]


def main(options: argparse.Namespace) -> int:
    """The exit code."""
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    uv = None if options.pip else beside or shutil.which("uv")
    found = {version: python for version in options.python if (python := find(version))}
    for version in options.python:
        print(f"Python {version}: {found.get(version, 'not found here, left out')}", flush=True)
    if not found:
        return 1
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="metafilm-packaging-") as folder:
        try:
            files = build(next(iter(found.values())), Path(folder), uv)
        except Failed as error:
            print(f"building failed:\n{error}", file=sys.stderr)
            return 1
        for version, python in found.items():
            for file in files:
                if options.only in (None, kind(file)):
                    row = try_out(python, file, version, version_here(), uv)
                    print(f"  {file.name} on {version}: {row.outcome}", flush=True)
                    rows.append(row)
    print("\n| Python | file | seconds | |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.python} | {row.file} | {row.seconds:.0f} | {row.outcome} |")
    for row in rows:
        if row.failed:
            print(f"\n{row.python}, {row.file}: {row.failed}", file=sys.stderr)
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main(parsed()))
