"""A task, or a bank of them, says enough of its learner that it predicts the same when it is loaded."""

import json

import pytest
import torch

from metafilm import CheckpointError, FewShotClassifier, Gate, MetaFiLM, Task, TaskBank
from metafilm.learner.overrides import overridden
from metafilm.storage import tensorfile

SETTINGS = {
    "steps": 2,
    "step_size": 0.05,
    "proximal": 0.5,
    "gate": Gate(steps=(1,), margin=2.0),
    "query_copies": 2,
    "copy_augment": "affine",
}
LABELS = list("aabbcc")


@pytest.fixture
def pretrained(tmp_path):
    """A network of torchvision's with weights of one's own, under settings of one's own."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
    return MetaFiLM.from_backbone("torchvision:squeezenet1_1", (3, 32, 32), weights=weights, **SETTINGS)


def test_a_task_of_a_pre_trained_network_is_loaded_with_its_settings(pretrained, tmp_path) -> None:
    images = torch.rand(6, 3, 32, 32)
    task = pretrained.adapt(images, LABELS)
    task.save(tmp_path / "task.safetensors")
    again = Task.load(tmp_path / "task.safetensors")
    assert torch.equal(again.logits(images), task.logits(images))
    made = again.learner
    assert isinstance(made, MetaFiLM) and made.source == pretrained.source
    assert made.gate == SETTINGS["gate"] and made.evaluation_steps == 2
    assert (made.query_copies, made.copy_augment) == (2, "affine")
    once_more = made.adapt(images, LABELS)
    assert all(torch.equal(value, once_more.film[name]) for name, value in task.film.items())


def test_a_classifier_over_it_is_loaded_with_its_settings(pretrained, tmp_path) -> None:
    images = torch.rand(6, 3, 32, 32).numpy()
    classifier = FewShotClassifier(pretrained).fit(images, LABELS)
    classifier.save(tmp_path / "classifier.safetensors")
    again = FewShotClassifier.load(tmp_path / "classifier.safetensors")
    assert (again.predict_proba(images) == classifier.predict_proba(images)).all()
    assert again.learner_.gate == SETTINGS["gate"] and again.learner_.evaluation_steps == 2


@pytest.mark.parametrize(
    ("name", "value"), [("steps", "two"), ("gate", {"steps": [0]}), ("gate", 3), ("encoder", "x")]
)
def test_what_no_file_of_ours_says_is_refused(pretrained, tmp_path, name, value) -> None:
    file = tmp_path / "task.safetensors"
    pretrained.adapt(torch.rand(6, 3, 32, 32), LABELS).save(file)
    tensors, metadata = tensorfile.read(file)
    metadata["backbone"] = json.dumps(json.loads(metadata["backbone"]) | {name: value})
    tensorfile.write(file, tensors, metadata)
    with pytest.raises(CheckpointError, match="damaged description of its network"):
        Task.load(file)


def test_a_learner_of_the_same_weights_that_predicts_otherwise_is_refused(tmp_path) -> None:
    """They have one fingerprint; without this their predictions would differ, and nobody would know."""
    learner = MetaFiLM.from_pretrained("omniglot-conv4")
    for settings, said in (
        ({"query_copies": 2, "copy_augment": "affine"}, "query_copies is 0, was 2"),
        ({"transform": ("normalise",)}, r"transform is \[\], was \['normalise'\]"),
    ):
        other = overridden(learner, **settings)
        assert other.fingerprint() == learner.fingerprint()
        task = other.adapt(torch.rand(6, 1, 28, 28), LABELS)
        bank = TaskBank(other)
        bank.add(task)
        task.save(tmp_path / "task.safetensors")
        bank.save(tmp_path / "bank.safetensors")
        for load in (
            lambda: Task.load(tmp_path / "task.safetensors"),
            lambda: Task.load(tmp_path / "task.safetensors", learner),
            lambda: TaskBank.load(tmp_path / "bank.safetensors", learner),
        ):
            with pytest.raises(CheckpointError, match=f"predicts otherwise than this one: .*{said}"):
                load()
        assert len(TaskBank.load(tmp_path / "bank.safetensors", other)) == 1
        assert Task.load(tmp_path / "task.safetensors", other).classes == task.classes


@pytest.mark.parametrize("kind", ["task", "bank"])
def test_a_file_from_before_says_nothing_and_is_read(tmp_path, kind) -> None:
    learner = MetaFiLM.from_pretrained("omniglot-conv4")
    task, bank, file = learner.adapt(torch.rand(6, 1, 28, 28), LABELS), TaskBank(learner), tmp_path / "file"
    bank.add(task)
    (task if kind == "task" else bank).save(file)
    tensors, metadata = tensorfile.read(file)
    del metadata["predicts_by"]
    tensorfile.write(file, tensors, metadata)
    assert Task.load(file, learner) if kind == "task" else TaskBank.load(file, learner)
    metadata["predicts_by"] = "7"
    tensorfile.write(file, tensors, metadata)
    with pytest.raises(CheckpointError, match="is damaged"):
        _ = Task.load(file, learner) if kind == "task" else TaskBank.load(file, learner)
