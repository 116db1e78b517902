"""Pictures of any form come out alike, and dark on light is told from light on dark, a set at a time."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import episodes
from metafilm import MetaFiLM, MetafilmError
from metafilm.learner.pictures import Recipe, ground, mismatched, trained_ground


@pytest.fixture(scope="module")
def ink() -> MetaFiLM:
    """The shipped weights: light strokes on black, 28 x 28."""
    return MetaFiLM.from_pretrained("omniglot-conv4")


@pytest.fixture(scope="module")
def drawings() -> torch.Tensor:
    """Ten drawings of generated characters, uint8 [10, 1, 28, 28], light on black."""
    return episodes.load("strokes", "val").images[:200:20]


def forms(drawings: torch.Tensor) -> dict[str, object]:
    array = drawings.numpy()
    return {
        "uint8 (n, C, H, W)": drawings,
        "uint8 (n, H, W)": array[:, 0],
        "(n, H, W, 1)": np.moveaxis(array, 1, -1),
        "(n, 3, H, W)": np.repeat(array, 3, 1),
        "(n, H, W, 3) floats": np.moveaxis(np.repeat(array, 3, 1), 1, -1) / 255,
        "flat rows": array.reshape(len(array), -1),
        "flat lists": array.reshape(len(array), -1).tolist(),
        "floats to 255": array.astype(np.float64),
        "PIL pictures": [Image.fromarray(one) for one in array[:, 0]],
        "PIL, 1.0": [Image.fromarray(one).convert("RGBA") for one in array[:, 0]],
        "arrays and tensors": [*array[:5, 0], *drawings[5:]],
    }


@pytest.mark.parametrize("form", forms(torch.zeros(10, 1, 28, 28, dtype=torch.uint8)))
def test_the_same_pictures_in_many_forms(form, ink, drawings) -> None:
    images, recipe = ink.preprocess(forms(drawings)[form])
    assert images.shape == (10, 1, 28, 28) and not recipe.inverted
    found = images.float() / 255 if images.dtype == torch.uint8 else images
    torch.testing.assert_close(found, drawings.float() / 255, atol=1e-6, rtol=0)


def test_files_of_other_sizes_are_resized_as_pictures_and_arrays_are(ink, drawings, tmp_path) -> None:
    large = [Image.fromarray(one).resize((80, 61)) for one in drawings[:, 0].numpy()]
    paths = [tmp_path / f"{i}.png" for i in range(len(large))]
    for path, picture in zip(paths, large, strict=True):
        picture.save(path)
    by_path, _ = ink.preprocess(paths)
    by_picture, _ = ink.preprocess(large)
    by_array, _ = ink.preprocess([np.asarray(picture) for picture in large])
    assert torch.equal(by_path, by_picture) and by_path.shape == (10, 1, 28, 28)
    assert (by_array.int() - by_path.int()).abs().max() <= 1
    from_strings, _ = ink.preprocess(np.array([str(path) for path in paths]))
    assert torch.equal(from_strings, by_path)


def test_a_picture_lies_as_its_exif_orientation_says(ink, drawings, tmp_path) -> None:
    upright = Image.fromarray(drawings[0, 0].numpy())
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right, to be seen upright
    turned = tmp_path / "turned.png"
    upright.rotate(90).save(turned, exif=exif)
    assert torch.equal(ink.preprocess([turned])[0][0], drawings[0])
    with Image.open(turned) as opened:
        assert torch.equal(ink.preprocess([opened])[0][0], drawings[0])


@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_dark_on_light_is_noticed_said_and_mended(ink, drawings, contrast) -> None:
    paper = (255 - contrast * drawings.float()).to(torch.uint8)
    with pytest.warns(UserWarning, match="10 pictures look like dark strokes on a light ground"):
        images, recipe = ink.preprocess(paper)
    assert recipe == Recipe(inverted=True)
    assert torch.equal(images, 255 - paper)
    # what the support set was treated by holds for every query, whatever it looks like
    assert torch.equal(ink.preprocess(drawings[:3], recipe=recipe)[0], 255 - drawings[:3])
    assert torch.equal(ink.preprocess(paper, invert="no")[0], paper)
    assert torch.equal(ink.preprocess(drawings, invert="yes")[0], 255 - drawings)


def test_one_light_picture_among_dark_ones_changes_nothing(ink, drawings) -> None:
    mixed = torch.cat((255 - drawings[:1], drawings[1:]))
    assert torch.equal(ink.preprocess(mixed)[0], mixed)


def test_adapt_says_so_by_itself(ink, drawings) -> None:
    labels = [0, 1] * 5
    with pytest.warns(UserWarning, match="trained on light strokes on a dark ground: invert them"):
        ink.adapt(255 - drawings, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ink.adapt(drawings, labels)
        ink.adapt(255 - drawings, labels, checked=True)


def test_pictures_with_many_tones_are_left_alone(ink) -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.rand(10, 1, 4, 4, generator=generator), (28, 28), mode="bicubic"
    ).clamp(0, 1)
    for brighter in (smooth, 0.5 + smooth / 2, smooth.sqrt()):
        assert torch.equal(ink.preprocess(brighter)[0], brighter)


def test_a_learner_of_light_pictures_wants_light_ones(make_learner, drawings) -> None:
    learner = make_learner(dtype=torch.float32, shape=(1, 28, 28))
    assert trained_ground(learner) is None and not mismatched(learner, 255 - drawings)
    learner.mean.fill_(0.92)
    assert trained_ground(learner) == "light"
    assert not mismatched(learner, 255 - drawings) and mismatched(learner, drawings)


def test_colour_learners_and_those_that_do_not_normalise(make_learner, drawings) -> None:
    colour = make_learner(dtype=torch.float32, shape=(3, 28, 28))
    colour.mean.fill_(0.08)
    assert trained_ground(colour) is None
    paper = 255 - drawings
    assert torch.equal(colour.preprocess(paper)[0], paper.expand(-1, 3, -1, -1))
    plain = make_learner(dtype=torch.float32, shape=(1, 28, 28))
    plain.mean.zero_()
    plain.std.fill_(1)
    assert trained_ground(plain) == "dark"  # by its settings, which name omniglot
    plain.config = None
    assert trained_ground(plain) is None


def test_the_ground_does_not_depend_on_contrast(drawings) -> None:
    dark, light = ground(drawings), ground(255 - drawings)
    torch.testing.assert_close(dark, -light)
    torch.testing.assert_close(ground(0.4 + drawings.float() / 1000), dark, atol=1e-3, rtol=0)
    assert dark.mean() < -0.8
    assert ground(torch.full((2, 1, 4, 4), 0.7)).abs().max() == 0


def test_digits_of_scikit_learn_and_rows_that_are_no_square(ink) -> None:
    rows = np.random.default_rng(0).integers(0, 17, (6, 64)).astype(float)
    images, recipe = ink.preprocess(rows)
    assert recipe == Recipe(False, 0.0, rows.max()) and images.max() <= 1
    ten = np.random.default_rng(0).normal(size=(6, 10))
    with pytest.warns(UserWarning, match="rows of 10 numbers are no square pictures: .* 4 x 4"):
        images, recipe = ink.preprocess(ten)
    assert (recipe.black, recipe.white) == pytest.approx((ten.min(), ten.max()))
    assert images.min() >= 0 and images.max() <= 1


def test_transparency_lies_on_white(ink, drawings) -> None:
    glass = torch.cat((drawings.expand(-1, 3, -1, -1), torch.zeros_like(drawings)), 1)
    assert ink.preprocess(glass, invert="no")[0].min() == 255


REFUSED = {
    "a path": ("here.png", "pictures are a str"),
    "normalised": (torch.randn(3, 1, 28, 28), "normalises by itself"),
    "NaN": (torch.full((2, 28, 28), float("nan")), "1568 values of the pictures are NaN"),
    "five axes": (torch.zeros(2, 1, 1, 28, 28), r"shape \(2, 1, 1, 28, 28\)"),
    "two channels": (torch.zeros(2, 2, 28, 28), "1, 3 or 4 channels"),
    "things": ([object()], "picture 0 is a object"),
    "complex": (np.zeros((2, 5, 5), complex), "an array of complex128"),
    "no file": (["/nowhere/a.png"], "can't read /nowhere/a.png"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_picture_is_refused(what, ink) -> None:
    pictures, message = REFUSED[what]
    with pytest.raises(MetafilmError, match=message):
        ink.preprocess(pictures)


def test_an_unknown_word_for_invert(ink, drawings) -> None:
    with pytest.raises(MetafilmError, match="invert is 'maybe'; expected auto, yes, no"):
        ink.preprocess(drawings, invert="maybe")


def test_queries_are_prepared_one_by_one_as_together(ink, drawings) -> None:
    rows = drawings.float().flatten(1)[:, :700] - 3
    with pytest.warns(UserWarning, match="27 x 27"):
        _, recipe = ink.preprocess(rows)
    together, _ = ink.preprocess(rows, recipe=recipe)
    apart = torch.cat([ink.preprocess(row[None], recipe=recipe)[0] for row in rows])
    assert torch.equal(together, apart)


def test_masks_are_bool_and_not_bytes(ink, drawings) -> None:
    mask = drawings > 127
    expected = ink.preprocess(mask.byte() * 255)[0].float() / 255
    torch.testing.assert_close(ink.preprocess(mask)[0].float(), expected)
    with pytest.raises(MetafilmError, match="their largest value is 1; give masks as bool"):
        ink.preprocess(mask.byte())
    ink.preprocess(torch.zeros_like(mask.byte()))  # black is black
