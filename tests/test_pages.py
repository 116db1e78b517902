"""The pages are true: their Python runs, their commands parse, links lead somewhere, examples work."""

import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import episodes
import metafilm
import metafilm.training
from metafilm.cli import commands as cli

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
# Blocks that reach a network, by the words in them.
ONLINE = ("push_to_hub",)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def runnable(page: str) -> list[str]:
    return [code for code in blocks(page, "python") if not any(word in code for word in ONLINE)]


def export_page_s_files(home: Path) -> None:
    """What the page's commands have written."""
    task = metafilm.FewShotClassifier().fit(home / "examples").task_
    images = task.learner.unit(task.learner.preprocess([home / "unknown" / "1.png"])[0])
    for name in ("network.onnx", "network.pt2"):
        if name.endswith("pt2") or find_spec("onnxruntime"):
            metafilm.serving.export(task, home / name, images)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in ("export.md", "ecosystem.md") else ())
        for page in sorted(PAGES)
        if runnable(page)
    ],
)
def test_python_runs(page, pictures, capsys) -> None:
    """All blocks of a page in a row, as a reader would."""
    names: dict[str, Any] = {}
    if page == "export.md":
        export_page_s_files(pictures)
    for code in runnable(page):
        if "onnxruntime" in code and find_spec("onnxruntime") is None:
            continue
        exec(compile(code, page, "exec"), names)
    capsys.readouterr()
    if page == "export.md":
        assert names["classes"] == ["a", "b"] and names["probabilities"].shape == (1, 2)


def command_lines() -> list[tuple[str, str]]:
    found = []
    for page in sorted(PAGES):
        for block in blocks(page, "sh"):
            lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
            found += [(page, line) for line in lines if line.startswith("metafilm ")]
    return found


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_commands_are_understood(page, line, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    if line.endswith("--help"):
        with pytest.raises(SystemExit) as left:
            cli.parse(shlex.split(line)[1:])
        assert left.value.code == 0
    else:
        assert cli.parse(shlex.split(line)[1:]) is not None


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page) -> None:
    """On GitHub, as files of the repository; the site's own check follows them there."""
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (DOCS / page).parent.joinpath(target).exists(), target


def test_every_metric_of_a_run_is_explained() -> None:
    """The names that training and evaluation write stand on the page."""
    page = PAGES["metrics.md"]
    for file in ("training/outer_gradient.py", "training/outer_loop.py", "evaluation/summary.py"):
        code = (ROOT / "metafilm" / file).read_text(encoding="utf-8")
        for name in re.findall(r'(?:report|found)\["(\w+)"\] =', code) + re.findall(
            r'"(\w+_norm|gap)":', code
        ):
            assert f"`{name}`" in page, name
    learner = metafilm.MetaFiLM.from_pretrained("omniglot-conv4")
    sampler = episodes.EpisodeSampler(episodes.load("strokes", "val"), ways=2, shots=1, queries=1)
    found = metafilm.evaluate(learner, sampler, 2, encoder_support="shuffled")
    assert {"gain_by_step", "encoder_difference", "protocol"} <= found.keys()
    for name in found:
        assert f"`{name}`" in page, name


# The examples.


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """Runs an example as a user would, in an empty folder; gives what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's libraries
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_scikit_learn_s_example(example) -> None:
    shown = example("with_sklearn.py")
    by_prototypes, by_features = (float(value) for value in re.findall(r": (0\.\d+)\n", shown))
    assert by_prototypes > 0.75 and by_features > 0.75 and "fewshotclassifier0" in shown


@pytest.mark.slow
def test_learn2learn_s_maml_learns_on_our_episodes(example) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("learn2learn", exc_type=ImportError)
    shown = example("with_learn2learn.py", "--iterations", "15", "--test-tasks", "10")
    found = re.search(r"new classes: ([\d.]+) ±", shown)
    assert found and float(found[1]) > 40  # guessing gives 20; 91 after 100 iterations


@pytest.mark.slow
def test_lightning_trains_on_our_episodes(example, tmp_path) -> None:
    if find_spec("lightning") is None:
        pytest.skip("lightning is not installed: pip install lightning")
    example("with_lightning.py", "--epochs", "1", "--tasks", "40")
    learner = metafilm.MetaFiLM.from_pretrained(tmp_path / "few-shot-lightning")
    sampler = episodes.EpisodeSampler(episodes.load("strokes", "test"), ways=5, shots=1, queries=5)
    assert metafilm.evaluate(learner, sampler, 20)["accuracy"] > 60
    moved = [
        float(norm.running_mean.abs().sum())
        for norm in learner.backbone.modules()
        if hasattr(norm, "running_mean")
    ]
    assert moved and all(value > 0 for value in moved)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # jupyter's
def test_the_notebook_runs(tmp_path, monkeypatch) -> None:
    if find_spec("nbclient") is None or find_spec("ipykernel") is None:
        pytest.skip("nbclient and ipykernel are not installed: pip install nbclient ipykernel")
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / "your-own-pictures.ipynb", 4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    options = {"timeout": 60, "kernel_name": "python3", "resources": {"metadata": {"path": str(tmp_path)}}}
    nbclient.NotebookClient(notebook, **options).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "['ru', 'ru', 'ru', 'ru']" in shown and "100 % right" in shown and "a chessboard: None" in shown


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The pages as a site: any warning fails, a link that leads nowhere among them."""
    for name in ("mkdocs", "material", "mkdocstrings"):
        if find_spec(name) is None:
            pytest.skip(f'{name} is not installed: pip install "metafilm[docs]"')
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_the_site_builds_strictly_and_reads_without_a_network(site) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', text)
        loaded += re.findall(
            r'<link[^>]* rel="(?:stylesheet|preload|preconnect|icon)"[^>]* href="([^"]+)"', text
        )
        loaded += re.findall(
            r'<link[^>]* href="([^"]+)"[^>]* rel="(?:stylesheet|preload|preconnect|icon)"', text
        )
        assert not [address for address in loaded if "//" in address], page
        assert 'class="mermaid"' not in text  # its program would come from elsewhere


@pytest.mark.slow
def test_the_reference_holds_what_a_user_types(site) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    documented = set(re.findall(r'id="([\w.]+)"', text))
    rooms = [metafilm, episodes, metafilm.film, metafilm.heads, metafilm.backbones, metafilm.training]
    for room in rooms:
        for name in room.__all__:
            thing = getattr(room, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):  # no rooms, registries, types of others
                own = {f"{room.__name__}.{name}", f"{thing.__module__}.{name}"}
                assert own & documented or thing.__module__ == "builtins", own
    assert {
        "metafilm.MetaFiLM.adapt",
        "metafilm.MetaFiLM.from_pretrained",
        "metafilm.Task.predict",
    } <= documented
    assert ":class:`" not in text and ":func:`" not in text


@pytest.mark.slow
def test_what_lies_outside_is_on_the_site_too(site) -> None:
    house = (site / "architecture.html").read_text(encoding="utf-8")
    assert 'href="source/metafilm/heads/base.py.html"' in house
    assert "class Head(nn.Module)" in re.sub(
        "<[^>]+>", "", (site / "source/metafilm/heads/base.py.html").read_text()
    )
    assert "metafilm.conditioning" in (site / "architecture.html").read_text()
    contributing = (site / "source" / "CONTRIBUTING.html").read_text(encoding="utf-8")
    assert 'href="../architecture.html"' in contributing and 'href="CHANGELOG.html"' in contributing
    notebook = re.sub("<[^>]+>", "", (site / "source/docs/examples/your-own-pictures.ipynb.html").read_text())
    assert "FewShotClassifier" in notebook and "nbformat" not in notebook
