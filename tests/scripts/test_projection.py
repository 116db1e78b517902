"""What a published training would cost, multiplied out from a measured step."""

import json

import pytest

from scripts import projection
from scripts.comparing import plans


def test_a_measurement_is_multiplied_out(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(plans, "mean_seconds", lambda step, ahead: (step(next(ahead)), 0.5)[1])
    out = tmp_path / "projection.json"
    words = [
        "--dataset",
        "strokes",
        "--image-size",
        "28",
        "--batch",
        "8",
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    assert projection.main(words) == 0
    conv4, resnet12 = json.loads(out.read_text())
    assert (conv4["backbone"], resnet12["backbone"]) == ("conv4", "resnet12")
    # 3×3 convolutions of 64 maps at 28, 14, 7 and 3 pixels
    expected = 2 * 9 * 64 * (28**2 * 1 + 14**2 * 64 + 7**2 * 64 + 3**2 * 64)
    assert conv4["forward_gflop"] * 1e9 == pytest.approx(expected)
    assert conv4["images_per_second"] == 16 and conv4["gflop_per_second"] == pytest.approx(
        48 * expected / 1e9
    )
    assert conv4["images_in_hours"] == 16 * 9000 and conv4["rfs_hours"] == 3.84e6 / 16 / 3600
    assert "| conv4, 28×28, cpu, 1 threads | 16 |" in capsys.readouterr().out
    assert projection.main([*conv4["command"].split()[2:], "--out", str(out)]) == 0  # makes it again
    assert json.loads(out.read_text()) == [conv4, resnet12]
    # a later call takes the place of its own rows alone
    monkeypatch.setattr(plans, "mean_seconds", lambda step, ahead: 1.0)
    assert projection.main([*words, "--backbones", "resnet12"]) == 0
    rates = {row["backbone"]: row["images_per_second"] for row in json.loads(out.read_text())}
    assert rates == {"conv4": 16, "resnet12": 8}
