"""Folders and repositories in the Hugging Face Hub's layout: written, read back, refused."""

import importlib.util
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from metafilm import CheckpointError, MetaFiLM, MetafilmError, RunError, Task, film
from metafilm.backbones import MLP
from metafilm.heads import RegressionHead
from metafilm.storage import hub

hf = pytest.importorskip("huggingface_hub")
spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
assert spec is not None and spec.loader is not None
hub_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)

# of huggingface_hub's own upload of large files where there is no Xet
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
ROOT = Path(__file__).resolve().parents[3]
RECORDS = ROOT / "results" / "omniglot.json"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The Hub, as far as this process knows; a cache of its own, a token of its own, no way out."""
    server = hub_server.Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    monkeypatch.setattr(hf.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hf.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hf.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr("time.sleep", lambda _: None)  # it tries again, later and later
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def learner() -> MetaFiLM:
    return MetaFiLM.from_pretrained("omniglot-conv4")


def header(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_a_folder_is_read_as_it_was_written(learner, tmp_path) -> None:
    folder = learner.save_pretrained(tmp_path / "mine", results=[RECORDS], license="mit")
    assert folder == tmp_path / "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = MetaFiLM.from_pretrained(folder)
    assert again.fingerprint() == learner.fingerprint() and again.source == str(folder)
    assert again.trained_on == learner.trained_on
    described = json.loads((folder / "config.json").read_text())
    assert described["backbone"] == "Conv4" and described["film_sites"] == film.sites(learner.backbone)
    assert described["fingerprint"] == learner.fingerprint() and described["settings"]["name"]
    # once more in the same place
    learner.save_pretrained(folder)
    assert "has not stated a licence" in (folder / "README.md").read_text()


def test_the_card_says_what_it_is_and_its_header_is_valid(learner, tmp_path) -> None:
    folder = learner.save_pretrained(tmp_path / "mine", results=[RECORDS], license="mit")
    text = (folder / "README.md").read_text()
    read = hf.ModelCard.load(folder / "README.md")
    read_back = read.data.to_dict()
    assert read_back["license"] == "mit" and read_back["library_name"] == "metafilm"
    assert read_back == {**header(text), "model-index": read_back["model-index"]}
    rows = json.loads(RECORDS.read_text())
    scores = read.data.eval_results
    own = [row for row in rows if row["encoder_support"] == "own"]
    assert [round(row["accuracy"], 4) for row in own] == [score.metric_value for score in scores]
    assert len(own) == len(rows) - 1 and text.count("the encoder given shuffled support") == 1
    assert "Episodes of 5 to 20 ways and 1 shot, seed 0." in text
    assert {score.dataset_name for score in scores} == {"omniglot"}
    first = rows[0]
    for stage, value, ci in zip(
        first["stages"], first["accuracy_by_step"], first["ci95_by_step"], strict=True
    ):
        assert f"{stage} {value:.2f} ± {ci:.2f}" in text
    for part in ("# mine", "## Use", "## Training", "## Results", "## Licence", "Meta-trained on "):
        assert part in text
    deviations = sum(value.numel() for value in film.parameters(learner.backbone).values())
    assert f"a task is {deviations} FiLM deviations at {len(film.sites(learner.backbone))} sites" in text
    # what it says to type works
    code = text.split("```python\n")[1].split("```")[0]
    generator = torch.Generator().manual_seed(0)
    names = {"images": torch.rand(4, 1, 28, 28, generator=generator), "labels": ["a", "b"] * 2}
    names["more_images"] = torch.rand(3, 1, 28, 28, generator=generator)
    exec(code, names)
    assert len(names["labels"]) == 3


def test_a_learner_of_functions_and_one_without_settings(tmp_path) -> None:
    network = MetaFiLM(film.insert(MLP(1, (8,), "tanh")), RegressionHead(8), image_shape=(1,)).eval()
    record = {"dataset": "sinusoids", "split": "test", "ways": 0, "shots": 10, "episodes": 5, "mse": 0.5}
    record |= {"protocol": "inductive", "stages": ["identity"], "mse_by_step": [0.5], "ci95_by_step": [0.1]}
    text = (network.save_pretrained(tmp_path / "curves", results=[record]) / "README.md").read_text()
    assert "identity 0.5000 ± 0.1000" in text and "task.predict(more)" in text
    assert header(text)["model-index"][0]["results"][0]["metrics"] == [{"type": "mse", "value": 0.5}]
    assert header(text)["model-index"][0]["results"][0]["task"]["name"] == "10-point"
    assert "mean squared error, of every stage" in text and "accuracy" not in text
    assert "pipeline_tag" not in header(text)
    assert MetaFiLM.from_pretrained(tmp_path / "curves").fingerprint() == network.fingerprint()


def test_what_can_not_be_written_is_refused(learner, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MetafilmError, match="is a file; give a folder"):
        learner.save_pretrained(tmp_path / "file")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "results.json").write_text("{")
    learner.source, before = str(tmp_path / "torn"), learner.source
    with pytest.raises(MetafilmError, match=r"results\.json is damaged"):
        learner.save_pretrained(tmp_path / "new")
    learner.source = before
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: x")
    with pytest.raises(RunError, match="holds a run"):
        learner.save_pretrained(tmp_path / "run")
    with pytest.raises(MetafilmError, match="a result lacks split, ways"):
        learner.save_pretrained(tmp_path / "new", results=[{"dataset": "omniglot"}])
    (tmp_path / "odd.json").write_text("[1]")
    with pytest.raises(MetafilmError, match="holds no results"):
        learner.save_pretrained(tmp_path / "new", results=[tmp_path / "odd.json"])
    with pytest.raises(MetafilmError, match="can't be read as results"):
        learner.save_pretrained(tmp_path / "new", results=[tmp_path / "none.json"])
    odd = {key: [] for key in ("dataset split ways shots episodes protocol ci95_by_step").split()}
    for values in ([1.0], [None]):
        record = odd | {"stages": ["all"], "accuracy_by_step": values, "ci95_by_step": values[:0] or [1.0]}
        if values == [1.0]:
            record["ci95_by_step"] = []
        with pytest.raises(MetafilmError, match="a result has the stages"):
            learner.save_pretrained(tmp_path / "new", results=[record])
    assert not (tmp_path / "new").exists()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine")
    with pytest.raises(MetafilmError, match=r"has a README\.md of something else"):
        learner.save_pretrained(tmp_path / "project")
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["README.md"]
    (tmp_path / "project" / "README.md").unlink()
    (tmp_path / "project" / "model.safetensors").write_bytes(b"somebody's only copy")
    with pytest.raises(MetafilmError, match=r"has a model\.safetensors of something else"):
        learner.save_pretrained(tmp_path / "project")
    assert (tmp_path / "project" / "model.safetensors").read_bytes() == b"somebody's only copy"
    learner.save(tmp_path / "project" / "model.safetensors")  # metafilm's own
    learner.save_pretrained(tmp_path / "project")
    learner.save_pretrained(tmp_path / "project")  # its own may be written anew


def test_pushed_and_fetched(learner, server, tmp_path) -> None:
    address = learner.push_to_hub("someone/few-shot", results=[RECORDS], license="mit", private=True)
    files = server.repositories["someone/few-shot"]
    assert address == f"{server.address}/someone/few-shot/commit/{hub_server.commit(files)}"
    assert server.private == {"someone/few-shot": True} and server.messages == ["Upload a metafilm learner"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert 'from_pretrained("someone/few-shot")' in files["README.md"].decode()
    server.requests.clear()
    again = MetaFiLM.from_pretrained("someone/few-shot")
    assert again.fingerprint() == learner.fingerprint() and again.source == "someone/few-shot"
    asked = {line.rpartition("/")[2] for line in server.requests}
    assert asked == {"model.safetensors"}, "nothing else is fetched"
    at_commit = MetaFiLM.from_pretrained(f"someone/few-shot@{hub_server.commit(files)}")
    assert at_commit.fingerprint() == learner.fingerprint()
    # a task names the repository, and finds its learner again
    task = again.adapt(torch.rand(4, 1, 28, 28), [0, 1, 0, 1])
    task.save(tmp_path / "task.safetensors")
    assert Task.load(tmp_path / "task.safetensors").learner.fingerprint() == learner.fingerprint()
    # a second push goes into the same repository
    learner.push_to_hub("someone/few-shot")
    assert "has not stated a licence" in files["README.md"].decode()


def test_what_is_not_there_is_said_in_one_line(learner, server) -> None:
    with pytest.raises(CheckpointError, match=r"^someone/none: nothing .* Hub there is no such repository"):
        MetaFiLM.from_pretrained("someone/none")
    server.repositories["someone/empty"] = {"README.md": b"# nothing"}
    with pytest.raises(CheckpointError, match=r"it holds no model.safetensors"):
        MetaFiLM.from_pretrained("someone/empty")
    with pytest.raises(CheckpointError, match=r"it has no such branch, tag or commit"):
        MetaFiLM.from_pretrained("someone/empty@old")
    server.repositories["someone/other"] = {
        "model.safetensors": safetensors.torch.save({"weight": torch.zeros(2)}, {"format": "pt"})
    }
    with pytest.raises(CheckpointError, match=r"is not a metafilm model"):
        MetaFiLM.from_pretrained("someone/other")
    server.repositories["someone/broken"] = {"model.safetensors": b"no tensors"}
    with pytest.raises(CheckpointError, match=r"is damaged or no safetensors file"):
        MetaFiLM.from_pretrained("someone/broken")
    with pytest.raises(MetafilmError, match="names no repository"):
        learner.push_to_hub("nobody")
    with pytest.raises(MetafilmError, match=r"someone/x, on the .* Hub: .*401.*log in with a token"):
        learner.push_to_hub("someone/x", token="hf_wrong")


def test_a_body_that_ends_half_way(learner, server) -> None:
    learner.push_to_hub("someone/few-shot")
    server.truncate = True
    with pytest.raises(CheckpointError, match=r"^someone/few-shot: nothing of .* on the Hugging Face Hub "):
        MetaFiLM.from_pretrained("someone/few-shot")
    server.truncate = False
    assert MetaFiLM.from_pretrained("someone/few-shot").fingerprint() == learner.fingerprint()


def test_without_a_network_what_was_fetched_before_is_used(learner, server, monkeypatch) -> None:
    learner.push_to_hub("someone/few-shot")
    MetaFiLM.from_pretrained("someone/few-shot")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert MetaFiLM.from_pretrained("someone/few-shot").fingerprint() == learner.fingerprint()
    with pytest.raises(CheckpointError, match="it can't be reached, and nothing of it is kept here"):
        MetaFiLM.from_pretrained("someone/never-asked")


def test_a_path_that_leads_nowhere_is_no_repository(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert hub.is_repository("someone/few-shot") and not hub.is_repository("runs/few-shot")
    for name in ("omniglot-conv4", "a/b/c", "/a/b", "../b", "a/b@", "timm:x/y"):
        assert not hub.is_repository(name)
    with pytest.raises(CheckpointError, match="neither a run directory"):
        MetaFiLM.from_pretrained("runs/few-shot")


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MetafilmError, match=r'someone/few-shot: nothing .*pip install "metafilm\[hub\]"'):
        MetaFiLM.from_pretrained("someone/few-shot")
