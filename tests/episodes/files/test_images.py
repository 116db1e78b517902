"""Reading pictures of any size and mode."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import episodes
from episodes import EpisodesError
from episodes.datasets.omniglot import read_drawing
from episodes.files.images import SUFFIXES, fit, read_image, read_images


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


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
"""


@pytest.mark.parametrize("read", [read_image, lambda path: read_drawing(path, 8)])
def test_no_file_starts_ghostscript(tmp_path, monkeypatch, read):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: started.append(1) or Image.new("L", (8, 8)))
    (tmp_path / "eps.png").write_bytes(EPS)
    with pytest.raises(OSError, match="cannot identify"):
        read(tmp_path / "eps.png")
    assert started == []


def test_pictures_are_opened_in_one_place():
    root = Path(episodes.__file__).parents[1]
    files = [
        file for package in ("episodes", "metafilm", "scripts") for file in (root / package).rglob("*.py")
    ]
    assert [str(file.relative_to(root)) for file in files if "Image.open(" in file.read_text()] == [
        "episodes/files/images.py"
    ]


def test_every_suffix_has_its_format(tmp_path):
    code = "import sys\nfrom pathlib import Path\nfrom episodes.files.images import read_image\n"
    code += "print(sum(int(read_image(Path(p), 1, 8).mean()) for p in sys.argv[1:]))"
    files = [saved(tmp_path, Image.new("L", (8, 8), 7), f"p{suffix}") for suffix in SUFFIXES]
    # in a process of its own: formats that another reader has loaded would hide that ours doesn't
    found = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert abs(int(found.stdout) - 7 * len(SUFFIXES)) <= 3


def resize_then_crop(picture, size):
    """The whole picture resized, then cropped: what `fit` gives without computing all of it."""
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    whole = picture.resize((width, height), Image.Resampling.BILINEAR)
    return whole.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_cropping_first_changes_nothing(mode):
    draws = np.random.default_rng(0)
    for _ in range(60):
        height, width, size = draws.integers(1, (90, 90, 60)).tolist()
        pixels = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).convert(mode)
        found, expected = (np.asarray(f(picture, size), int) for f in (fit, resize_then_crop))
        allowed = 1 if max(picture.size) > 15 * min(picture.size) else 0
        assert found.shape == expected.shape and abs(found - expected).max() <= allowed, picture.size


@pytest.mark.parametrize("size", [(1, 300_000), (300_000, 1)])
def test_a_long_thin_picture_costs_its_centre_alone(tmp_path, monkeypatch, size):
    path = saved(tmp_path, Image.new("L", size, 9))
    sizes, resize = [], Image.Image.resize

    def recorded(self, to, *arguments, **options):
        sizes.append(to)
        if to[0] * to[1] > 1 << 20:
            raise MemoryError(f"a picture of {to}")
        return resize(self, to, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    assert (read_image(path) == 9).all() and sizes == [(84, 84)]


@pytest.mark.parametrize("side", [13_000, 50_000])  # 50,000 squared is too much for Pillow too
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_pixels_than_are_taken_are_refused_undecoded(tmp_path, monkeypatch, side):
    monkeypatch.setattr("episodes.files.images.MAX_PIXELS", 100_000_000)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("was decoded"))
    # a header alone: the size is in the first chunk
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    data = b"IDAT"
    png += struct.pack(">I", 0) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "bomb.png").write_bytes(png)
    for read in (read_image, lambda path: read_drawing(path, 8)):
        with pytest.raises(OSError, match="scale it down to at most 100000000"):
            read(tmp_path / "bomb.png")
    with pytest.raises(EpisodesError, match=r"can't read .*bomb\.png: .*scale it down"):
        read_images([tmp_path / "bomb.png"], read_image)


def test_deep_pictures_are_converted_in_strips(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 65536, (30, 41)).astype(np.uint16)
    path = saved(tmp_path, Image.fromarray(values))
    whole = read_image(path, 1, 30)
    monkeypatch.setattr("episodes.files.images._STRIP", 7)
    np.testing.assert_array_equal(read_image(path, 1, 30), whole)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("read", [read_image, lambda path: read_drawing(path, 8)])
def test_pipes_and_devices_are_no_pictures(tmp_path, monkeypatch, read):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("was opened"))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "zero.png", "folder.png"):
        with pytest.raises(OSError, match="it is a folder, pipe or device"):
            read(tmp_path / name)
    with pytest.raises(EpisodesError, match=r"can't read .*pipe\.png: it is a folder, pipe or device"):
        read_images([tmp_path / "pipe.png"], read)
