"""Reading pictures of any size and mode."""

import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from episodes import EpisodesError
from episodes.files import images
from episodes.files.images import as_pixels, fit, open_picture, read_image, read_images


def saved(tmp_path, picture, name="p.png", **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def test_shape_type_and_values(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(pixels))
    found = read_image(path, 3, 6)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_image(path, 3, 6, invert=True), 255 - found)
    np.testing.assert_array_equal(read_image(path, 1, 6)[0], np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (41, 23)])
def test_shorter_side_then_centre(tmp_path, size):
    width, height = size
    ramp = (
        np.tile(np.linspace(0, 255, width), (height, 1))
        if width > height
        else np.linspace(0, 255, height)[:, None]
    )
    picture = Image.fromarray(np.broadcast_to(ramp, (height, width)).astype(np.uint8))
    found = read_image(saved(tmp_path, picture), 1, 10)[0].astype(float)
    assert found.shape == (10, 10)
    line = found.mean(0) if width > height else found.mean(1)
    assert (
        line.mean() == pytest.approx(127.5, abs=8) and line[0] > 45 and line[-1] < 210
    )  # the ends are cut off


def test_one_bit_pictures_are_averaged_not_sampled(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (20, 10))
    found = read_image(saved(tmp_path, Image.fromarray(stripes).convert("1", dither=0)), 1, 10)
    assert abs(int(found[0, 5, 5]) - 127) < 20


def test_transparency_lies_on_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (read_image(saved(tmp_path, clear), 3, 4) == 255).all()
    grey = Image.new("LA", (4, 4), (0, 128))
    assert (abs(read_image(saved(tmp_path, grey), 1, 4).astype(int) - 127) <= 1).all()
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([0, 0, 0] * 256)
    assert (read_image(saved(tmp_path, palette, "p.gif", transparency=3), 3, 4) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = Image.fromarray(np.array([[0, 43690], [65535, 257]], np.uint16))
    assert read_image(saved(tmp_path, deep), 1, 2)[0].tolist() == [[0, 170], [255, 1]]
    real = Image.fromarray(np.array([[0, 0.5], [1, 0.2]], np.float32))
    assert read_image(saved(tmp_path, real, "p.tiff"), 1, 2)[0].tolist() == [[0, 128], [255, 51]]


def test_exif_orientation_and_cmyk(tmp_path):
    picture = Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8).repeat(8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = read_image(saved(tmp_path, picture, "p.jpg", exif=exif, quality=95), 1, 16)[0]
    assert turned[2].mean() < 20 and turned[13].mean() > 235
    cmyk = Image.new("CMYK", (4, 4), (0, 0, 0, 0))
    assert (read_image(saved(tmp_path, cmyk, "c.jpg"), 3, 4) >= 254).all()


@pytest.mark.parametrize("name", ["p.png", "p.webp"])
@pytest.mark.parametrize("exif", [b"XXgarbage", b"Exif\0\0XX*\0garbage"])
def test_an_orientation_that_cannot_be_parsed_is_none(tmp_path, name, exif):
    path = saved(tmp_path, Image.new("L", (4, 4), 200), name, exif=exif)
    assert (abs(read_image(path, 1, 4).astype(int) - 200) <= 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_modes_that_pillow_does_not_bring_to_grey(tmp_path, channels):
    lab = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (255, 128, 128)])
    assert (read_image(saved(tmp_path, lab, "p.tif"), channels, 4) >= 254).all()
    assert (as_pixels(Image.new("La", (4, 4), (0, 0)), channels, 4) == 255).all()


def test_channels_must_be_one_or_three(tmp_path):
    with pytest.raises(EpisodesError, match="not 4"):
        read_image(saved(tmp_path, Image.new("L", (4, 4))), 4, 4)


def test_many_in_order_and_of_one_shape(tmp_path):
    paths = [saved(tmp_path, Image.new("L", (2, 2), n), f"{n}.png") for n in range(150)]
    images = read_images(paths, lambda path: read_image(path, 1, 2))
    assert images[:, 0, 0, 0].tolist() == list(range(150))
    with pytest.raises(EpisodesError, match="there are no files"):
        read_images([], read_image)
    paths[140] = saved(tmp_path, Image.new("L", (3, 2)), "odd.png")
    with pytest.raises(EpisodesError, match=r"odd\.png has shape \(1, 2, 3\)"):
        read_images(paths, lambda path: np.asarray(Image.open(path))[None])


def naive_fit(picture, size):
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    whole = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return whole.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("shape", [(30, 30), (31, 57), (57, 31), (20, 160), (3, 7)])
def test_fit_is_resize_then_crop(shape):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    np.testing.assert_array_equal(fit(picture, 12), naive_fit(picture, 12))


@pytest.mark.parametrize("shape", [(2, 400), (400, 2), (3, 301)])
def test_long_pictures_keep_their_middle(shape):
    ramp = np.linspace(0, 255, max(shape)).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(ramp, sorted(shape))))
    picture = picture if shape[0] < shape[1] else picture.transpose(Image.Transpose.TRANSPOSE)
    found, expected = (np.asarray(f(picture, 8)).astype(int) for f in (fit, naive_fit))
    assert abs(found - expected).max() <= 1


@pytest.mark.parametrize("size", [(1, 300_000), (300_000, 1)])
def test_work_is_bounded_by_the_size_of_the_result(tmp_path, monkeypatch, size):
    made, resize = [], Image.Image.resize

    def watched(self, target, *options, **more):
        made.append(target[0] * target[1])
        assert made[-1] < 1_000_000
        return resize(self, target, *options, **more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert (read_image(saved(tmp_path, Image.new("L", size, 9)), 3, 84) == 9).all() and made


def test_a_picture_that_announces_too_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_MOST_PIXELS", 1000)
    with pytest.raises(OSError, match="40 x 30 pixels, 1000 at most"):
        read_image(saved(tmp_path, Image.new("L", (40, 30))), 1, 8)
    photograph = saved(tmp_path, Image.new("L", (40, 30), 200), "p.jpg")
    with open_picture(photograph) as opened:
        assert opened.size == (20, 15)
    assert abs(read_image(photograph, 1, 8).astype(int) - 200).max() <= 2
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow's own: an error from twice that on
    assert abs(read_image(photograph, 1, 8).astype(int) - 200).max() <= 2, "a photograph of 200 megapixels"
    with pytest.raises(OSError, match="decompression bomb"):
        read_image(saved(tmp_path, Image.new("L", (40, 30))), 1, 8)
    larger = saved(tmp_path, Image.new("L", (80, 60), 200), "q.jpg")
    with pytest.raises(OSError, match="80 x 60 pixels, 1000 at most"):
        read_image(larger, 1, 8)


def test_no_decoder_that_starts_a_program(tmp_path, monkeypatch):
    def started(*_, **__):
        raise AssertionError("a program was started")

    for name in ("Popen", "check_call", "run", "call"):
        monkeypatch.setattr(subprocess, name, started)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 9 9 rectfill\nshowpage\n"
    (tmp_path / "p.png").write_bytes(page)
    with pytest.raises(OSError, match="cannot identify"):
        read_image(tmp_path / "p.png", 1, 8)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_pipes_folders_and_devices_are_not_opened(tmp_path, make):
    make(tmp_path / "p.png")
    with pytest.raises(OSError, match="no regular file"):
        read_image(tmp_path / "p.png", 1, 8)


def test_links_that_lead_nowhere_are_named(tmp_path):
    good = saved(tmp_path, Image.new("L", (8, 8)))
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "round.png").symlink_to("round.png")
    for bad in ("gone.png", "round.png"):
        with pytest.raises(EpisodesError, match=rf"can't read .*{bad}"):
            read_images([good, tmp_path / bad], lambda path: read_image(path, 1, 8))
