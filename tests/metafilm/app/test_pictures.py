"""A picture's file becomes what the learner was trained on, or one clear refusal."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from metafilm import MetaFiLM
from metafilm.app import Refused
from metafilm.app.pictures import Look, from_file, from_strokes
from metafilm.app.strokes import ink

CROSS = [[[0.5, 0.2], [0.5, 0.8]], [[0.3, 0.5], [0.7, 0.5]]]
INK = Look(1, 28, True)


def as_file(pixels: np.ndarray, kind: str = "png", **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


@pytest.fixture
def drawn() -> np.ndarray:
    """A cross of ink 255 on 0, 280 pixels wide."""
    return np.asarray(Image.fromarray(ink(CROSS, 105)).resize((280, 280)))


def close(first: torch.Tensor, second: torch.Tensor) -> float:
    """Correlation of two pictures' pixels."""
    return float(torch.corrcoef(torch.stack((first.flatten().double(), second.flatten().double())))[0, 1])


def test_a_scan_a_negative_and_a_photograph_of_one_character_look_as_if_drawn(drawn):
    target = from_strokes(CROSS, INK)
    assert target.dtype == torch.uint8 and target.shape == (1, 28, 28) and target[0, 0, 0] == 0
    shade = np.linspace(150, 225, 280)[None] * np.ones((280, 1))  # paper lit from one side
    photo = (shade * (1 - 0.7 * drawn / 255)).astype(np.uint8)
    aside = np.full((400, 300), 255, np.uint8)
    aside[20:160, 120:260] = 255 - drawn[::2, ::2]
    for content in (as_file(255 - drawn), as_file(drawn), as_file(photo, "jpeg")):
        found = from_file(content, INK)
        assert found.shape == target.shape and close(found, target) > 0.99
    assert close(from_file(as_file(aside), INK), target) > 0.8  # half a pixel aside


@pytest.mark.parametrize("shape", [(105, 315), (315, 105), (105, 2100), (2100, 105)])
@pytest.mark.parametrize("end", [False, True])
def test_a_character_far_from_the_middle_is_found(shape, end):
    wide = np.full(shape, 255, np.uint8)
    place = (slice(-105, None), slice(-105, None)) if end else (slice(105), slice(105))
    wide[place] = 255 - ink(CROSS, 105)
    found = from_file(as_file(wide), INK)
    assert close(found, from_strokes(CROSS, INK)) > 0.97


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1)])
def test_a_thread_of_a_picture_is_no_work_without_end(shape):
    thread = np.full(shape, 255, np.uint8)
    thread.flat[40_000:60_000] = 0
    assert from_file(as_file(thread), INK).shape == (1, 28, 28)


def test_photographs_keep_their_colours():
    red = np.zeros((30, 30, 3), np.uint8)
    red[..., 0] = 200
    found = from_file(as_file(red), Look(3, 16, False))
    assert found.shape == (3, 16, 16) and found[0].min() == 200 and found[1:].max() == 0
    paper = from_strokes(CROSS, Look(3, 64, False))
    assert paper.shape == (3, 64, 64) and paper[:, 0, 0].tolist() == [255] * 3 and paper.min() < 60


def test_what_cannot_be_read_is_refused_in_a_sentence(drawn):
    whole = as_file(drawn)
    cases = {
        b"hello, I am a text": 415,
        whole[: len(whole) // 2]: 415,
        b"": 415,
        as_file(np.full((40, 40), 200, np.uint8)): 400,  # nothing on it
        as_file(np.zeros((9000, 9000), np.uint8)): 413,  # more than is opened
        as_file(np.zeros((5000, 6000), np.uint8)): 413,  # 30 million pixels
    }
    for content, status in cases.items():
        with pytest.raises(Refused) as said:
            from_file(content, INK)
        assert said.value.status == status and "\n" not in str(said.value)
    assert "6000 × 5000 = 30 million pixels, 24 at most" in str(said.value)


def test_no_file_is_left_behind(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    from_file(as_file(drawn), INK)
    with pytest.raises(Refused):
        from_file(b"none", INK)
    assert not list(tmp_path.iterdir())


def test_what_a_learner_was_trained_on(make_learner):
    assert Look.of(MetaFiLM.from_pretrained("omniglot-conv4")) == INK
    assert Look.of(make_learner(shape=(3, 16, 16))) == Look(3, 16, False)
    functions = make_learner(
        shape=(1,),
        data={"name": "sinusoids", "image_size": None},
        backbone={"name": "mlp"},
        head={"name": "regression"},
    )
    with pytest.raises(Refused, match="square pictures"):
        Look.of(functions)
