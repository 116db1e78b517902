"""What was calibrated lies in the weights' file, beside all that was there, and leaves with other weights."""

import pytest
import torch

from metafilm import CheckpointError, MetaFiLM, MetafilmError
from metafilm.storage import tensorfile
from metafilm.storage.calibration import KEY, Calibration, Level, read_calibration, write_calibration


@pytest.fixture
def learner(make_learner) -> MetaFiLM:
    return make_learner(dtype=torch.float32)


def of(learner: MetaFiLM) -> Calibration:
    levels = Level(1, 2.0, (-4.0, -2.0, -1.0)), Level(4, 8.0, (-3.0, -1.0, 0.0))
    return Calibration(levels, learner.fingerprint(), {"split": "val", "shots": [1, 4]})


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
    assert [found.threshold(rate, 1) for rate in (0.25, 0.5, 0.75)] == [-3, -2, -1.5]
    for wrong in (0, 1, -0.1, 5, True, "0.1", float("nan")):
        with pytest.raises(MetafilmError, match="between 0 and 1"):
            found.threshold(wrong, 1)


def test_between_two_numbers_of_shots_the_logarithm_decides(learner) -> None:
    found = of(learner)
    for shots, temperature, threshold in ((0.5, 2, -2), (1, 2, -2), (2, 4, -1.5), (4, 8, -1), (50, 8, -1)):
        assert found.temperature(shots) == pytest.approx(temperature)
        assert found.threshold(0.5, shots) == pytest.approx(threshold)


@pytest.mark.parametrize(
    "values", [(0.0, (0.0, 1.0)), (1.0, (1.0, 0.0)), (1.0, (0.0,)), (float("nan"), (0.0, 1.0))]
)
def test_impossible_values(values) -> None:
    with pytest.raises(MetafilmError):
        Level(1, *values)


@pytest.mark.parametrize("shots", [(), (5, 1), (1, 1)])
def test_levels_of_impossible_shots(shots) -> None:
    with pytest.raises(MetafilmError, match="rising numbers"):
        Calibration(tuple(Level(n, 1.0, (0.0, 1.0)) for n in shots), "0")


def test_an_older_file_has_one_level_for_all() -> None:
    found = Calibration.from_json('{"temperature": 3, "familiarity": [0, 1], "weights": "a", "tasks": {}}')
    assert found == Calibration((Level(1, 3.0, (0.0, 1.0)),), "a")
    assert found.temperature(5) == pytest.approx(3) and found.threshold(0.5, 7) == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "[" * 100_000,
        "nonsense",
        '{"temperature": -1, "familiarity": [0, 1], "weights": "", "tasks": {}}',
    ],
)
def test_a_damaged_calibration_is_named(text, learner, tmp_path) -> None:
    path = tmp_path / "tiny.safetensors"
    learner.save(path)
    tensors, metadata = tensorfile.read(path)
    tensorfile.write(path, tensors, {**metadata, KEY: text})
    with pytest.raises(CheckpointError, match="has a damaged calibration"):
        MetaFiLM.from_pretrained(path)
