"""Support sets as people have them: arrays, PIL pictures, bytes, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from metafilm import MetafilmError
from metafilm.learner.support import as_pictures, class_order, support_episode

GREY, COLOUR = (1, 6, 5), (3, 6, 5)
BYTES = torch.randint(0, 256, (4, *COLOUR), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
FLOATS = BYTES.float() / 255


def kinds() -> dict[str, object]:
    array = BYTES.numpy()
    last = np.moveaxis(array, 1, -1)
    return {
        "bytes": BYTES,
        "floats": FLOATS,
        "array": array,
        "float array": FLOATS.numpy(),
        "the other order of bytes": FLOATS.numpy().astype(">f4"),
        "channels last": last,
        "list of tensors": list(BYTES),
        "list of arrays": list(array),
        "list of arrays, channels last": list(last),
        "pictures": [Image.fromarray(picture) for picture in last],
    }


@pytest.mark.parametrize("kind", kinds())
def test_the_same_pictures_in_many_forms(kind) -> None:
    torch.testing.assert_close(as_pictures(kinds()[kind], COLOUR), FLOATS)


def test_grey_pictures_without_a_channel_axis_and_of_any_mode() -> None:
    grey = BYTES[:, :1]
    for images in (
        grey[:, 0].numpy(),
        list(grey[:, 0].numpy()),
        [Image.fromarray(g) for g in grey[:, 0].numpy()],
    ):
        torch.testing.assert_close(as_pictures(images, GREY), grey.float() / 255)
    colourful = [Image.fromarray(grey[0, 0].numpy()).convert(mode) for mode in ("RGB", "RGBA", "L")]
    torch.testing.assert_close(as_pictures(colourful, GREY), (grey[:1].float() / 255).expand(3, -1, -1, -1))


def test_a_filter_s_overshoot_is_no_error_and_vectors_have_no_range() -> None:
    as_pictures(FLOATS * 1.2 - 0.1, COLOUR)
    as_pictures(100 * torch.randn(3, 2), (2,))


REFUSED = {
    "0 to 255 as floats": (BYTES.float(), "divide by 255, or give them as uint8"),
    "normalised": ((FLOATS - 0.5) / 0.25, "normalises by itself"),
    "NaN": (
        FLOATS.clone().index_fill_(0, torch.tensor([1]), float("nan")),
        "90 values of the images are NaN",
    ),
    "infinite": (FLOATS / 0, "NaN or infinite"),
    "numbers": (BYTES.long(), r"images are torch\.int64"),
    "another shape": (FLOATS[:, :, :4], r"shape \(4, 3, 4, 5\), this learner expects \(n, 3, 6, 5\)"),
    "sizes": ([FLOATS[0], FLOATS[0, :, :4]], r"image 1 has shape \(3, 4, 5\), image 0 has .* 6 x 5"),
    "kinds": ([FLOATS[0], BYTES[0]], r"image 1 is torch\.uint8, image 0 is torch\.float32"),
    "names": (["a.png", "b.png"], "give PIL pictures, arrays or tensors"),
    "a name": ("a.png", "images are a str"),
    "objects": ([object()], "image 0 is a object"),
    "a number": (3, "images are a int"),
    "text": (np.full((2, 3, 6, 5), "a"), "images are an array of <U1"),
    "an array of objects": (np.full((2, 3, 6, 5), None), "images are an array of object"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind) -> None:
    images, message = REFUSED[kind]
    with pytest.raises(MetafilmError, match=message):
        as_pictures(images, COLOUR)


def test_a_learner_takes_them_and_any_floating_point(make_learner, make_episode) -> None:
    learner = make_learner(dtype=torch.float32)
    episode = make_episode(tasks=1)
    images, labels = (episode.support_images[0] * 255).round().to(torch.uint8), [0, 0, 1, 1, 2, 2]
    expected = learner.adapt(images, labels)
    pictures = [Image.fromarray(image[0].numpy()) for image in images]
    for given in (images.numpy(), pictures, images.double() / 255, images.half() / 255):
        found = learner.adapt(given, labels)
        for name, value in expected.film.items():
            torch.testing.assert_close(found.film[name], value, rtol=1e-2, atol=1e-3)
        assert found.predict_proba(given).dtype == torch.float32


def test_class_order() -> None:
    assert class_order(["b", "a", "b"]) == ["a", "b"]
    assert class_order([(1,), "a", None, "a"]) == [(1,), "a", None]


LABELS_REFUSED = {
    "a column": (
        torch.zeros(4, 1).long(),
        r"labels have shape \(4, 1\), expected \(4,\), one value for each",
    ),
    "an array": (np.zeros((4, 2)), r"labels have shape \(4, 2\), expected \(4,\)"),
    "lists": ([[0], [0], [1], [1]], r"label 0 is \[0\], a list; give one value for each image"),
    "arrays": ([0, np.zeros(2), 1, 1], r"label 1 is array\(.*a ndarray"),
    "tensors": ([0, 1, 0, torch.zeros(2)], r"label 3 is tensor\(.*a Tensor"),
    "lists in tuples": ([("a", [0])] * 4, "label 0 is .* a tuple"),
}


@pytest.mark.parametrize("kind", LABELS_REFUSED)
def test_labels_that_are_refused(kind) -> None:
    labels, message = LABELS_REFUSED[kind]
    with pytest.raises(MetafilmError, match=message):
        support_episode(torch.rand(4, 1, 6, 5), labels, False)


def test_labels_of_any_hashable_kind() -> None:
    for labels in (
        [3, 3, 5, 5],
        np.array([3, 3, 5, 5]),
        torch.tensor([3, 3, 5, 5]),
        [torch.tensor(3)] * 2 + [np.int64(5)] * 2,
    ):
        episode, classes = support_episode(torch.rand(4, 1, 6, 5), labels, False)
        assert classes == [3, 5] and episode.support_labels.tolist() == [[0, 0, 1, 1]]
