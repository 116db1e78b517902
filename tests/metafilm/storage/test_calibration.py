"""What was calibrated lies in the weights' file, beside all that was there, and leaves with other weights."""

import pytest
import torch

from metafilm import CheckpointError, MetaFiLM, MetafilmError
from metafilm.storage import tensorfile
from metafilm.storage.calibration import KEY, Calibration, read_calibration, write_calibration


@pytest.fixture
def learner(make_learner) -> MetaFiLM:
    return make_learner(dtype=torch.float32)


def of(learner: MetaFiLM) -> Calibration:
    return Calibration(2.0, (-4.0, -2.0, -1.0), learner.fingerprint(), {"split": "val", "shots": [1, 5]})


def test_written_beside_the_weights_and_read_with_them(learner, tmp_path) -> None:
    path = tmp_path / "tiny.safetensors"
    learner.save(path)
    assert read_calibration(path) is None and MetaFiLM.from_pretrained(path).calibration is None
    tensors, metadata = tensorfile.read(path)
    write_calibration(path, of(learner))
    again, more = tensorfile.read(path)
    assert {name: value for name, value in more.items() if name != KEY} == metadata
    assert all(torch.equal(again[name], tensors[name]) for name in tensors) and again.keys() == tensors.keys()
    found = MetaFiLM.from_pretrained(path)
    assert found.calibration == found.calibrated() == read_calibration(path) == of(learner)
    found.save(tmp_path / "copy.safetensors")
    assert read_calibration(tmp_path / "copy.safetensors") == of(learner)


@pytest.mark.parametrize("config", [True, False])
def test_other_weights_have_none(config, learner, tmp_path) -> None:
    learner.calibration = of(learner)
    if not config:
        learner.config = None
    learner.save(tmp_path / "same.safetensors")
    with torch.no_grad():
        next(learner.backbone.parameters()).add_(1)
    assert learner.calibrated() is None
    learner.save(tmp_path / "other.safetensors")
    assert read_calibration(tmp_path / "same.safetensors") is not None
    assert read_calibration(tmp_path / "other.safetensors") is None


def test_thresholds_lie_between_the_quantiles(learner) -> None:
    found = of(learner)
    assert found.threshold(0.5) == -2 and found.threshold(0.25) == -3 and found.threshold(0.75) == -1.5
    for wrong in (0, 1, -0.1, 5, True, float("nan")):
        with pytest.raises(MetafilmError, match="between 0 and 1"):
            found.threshold(wrong)


@pytest.mark.parametrize(
    "values", [(0.0, (0.0, 1.0)), (1.0, (1.0, 0.0)), (1.0, (0.0,)), (float("nan"), (0.0, 1.0))]
)
def test_impossible_values(values) -> None:
    with pytest.raises(MetafilmError):
        Calibration(*values, "0")


@pytest.mark.parametrize(
    "text", ["{}", "nonsense", '{"temperature": -1, "familiarity": [0, 1], "weights": "", "tasks": {}}']
)
def test_a_damaged_calibration_is_named(text, learner, tmp_path) -> None:
    path = tmp_path / "tiny.safetensors"
    learner.save(path)
    tensors, metadata = tensorfile.read(path)
    tensorfile.write(path, tensors, {**metadata, KEY: text})
    with pytest.raises(CheckpointError, match="has a damaged calibration"):
        MetaFiLM.from_pretrained(path)
