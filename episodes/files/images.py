"""From picture files to uint8 arrays."""

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from episodes.errors import EpisodesError
from episodes.progress import Progress

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

# Pillow tries every decoder it has, whatever a file is called, and one of them runs Ghostscript: only these.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
# Pictures too, which are named as unreadable lest they be missed in silence. Cameras' own are not tried: many
# are TIFF, which opens as its thumbnail.
UNREAD = (
    *(".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"),
)
_MOST_PIXELS = 1 << 26  # decoded at once; a file of some kilobytes can announce any number
JPEG = b"\xff\xd8\xff"  # how its files begin
_STEPS = {"LAB": "RGB", "La": "LA"}  # modes that Pillow does not bring to grey by itself
_LONGEST = 8  # times the shorter side: what lies further out is cropped away in the end, so it isn't resized


def read_images(
    paths: Sequence[Path], read: Callable[[Path], np.ndarray], description: str = "reading images"
) -> np.ndarray:
    """All files as one array: uint8 [N, C, H, W], read by several threads (decoders let go of Python's lock).

    read: path -> uint8 [C, H, W]. Raises EpisodesError naming the first file that can't be read or has
    another shape.
    """
    if not paths:
        raise EpisodesError(f"{description}: there are no files")

    def checked(path: Path) -> np.ndarray:
        try:
            return read(path)
        except EpisodesError:
            raise
        except Exception as error:  # decoders raise whatever they like on a damaged file
            raise EpisodesError(f"can't read {path}: {error}; replace it by a good copy") from error

    first = checked(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)

    def fill(start: int) -> int:
        part = paths[start : start + 64]
        for row, path in enumerate(part, start):
            image = checked(path)
            if image.shape != first.shape:
                raise EpisodesError(
                    f"{path} has shape {image.shape}, but {paths[0]} has {first.shape}: all must have one"
                )
            images[row] = image
        return len(part)

    with (
        Progress(description, len(paths)) as progress,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers,
    ):
        try:
            for done in workers.map(fill, range(0, len(paths), 64)):
                progress.advance(done)
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    return images


def read_image(path: Path, channels: int = 3, size: int = 84, invert: bool = False) -> np.ndarray:
    """A picture of any size and mode as uint8 [channels, size, size].

    channels: 3 (RGB) or 1 (grey). Turned as its EXIF orientation says; transparency lies on white; 16-bit and
    float pictures are brought to 8 bits; the shorter side is resized to `size` (antialiased, bilinear), the
    centre cropped. invert: 255 - value, for ink on paper where ink on black is expected (Omniglot). Raises
    OSError when it is no picture of FORMATS, no regular file or too large; see `open_picture`.
    """
    with open_picture(path) as opened:
        opened.load()
        pixels = as_pixels(opened, channels, size)
    return 255 - pixels if invert else pixels


def is_named_as_picture(path: Path) -> bool:
    """Whether the name is a picture's, of a kind that is read or one that isn't."""
    return path.suffix.lower() in (*SUFFIXES, *UNREAD)


def as_pixels(picture: "Image.Image", channels: int, size: int | None) -> np.ndarray:
    """Pillow's picture as uint8 [channels, size, size], brought to it as `read_image` says; at its own height
    and width where `size` is None."""
    picture = flat(picture, channels)
    if size is not None:
        picture = fit(picture, size)
    pixels = np.asarray(picture, np.uint8).reshape(picture.height, picture.width, channels)
    return np.array(pixels.transpose(2, 0, 1), order="C")


def flat(picture: "Image.Image", channels: int) -> "Image.Image":
    """Pillow's picture upright, in 8 bits, on white and whole: in mode "L" for 1 channel, "RGB" for 3."""
    from PIL import Image

    if channels not in (1, 3):
        raise EpisodesError(f"pictures have 1 (grey) or 3 (RGB) channels, not {channels}")
    picture = _eight_bit(_upright(picture))
    if picture.mode in _STEPS:
        picture = picture.convert(_STEPS[picture.mode])
    if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    # Before resizing: Pillow silently falls back to nearest neighbour on modes "1" and "P".
    return picture.convert("L" if channels == 1 else "RGB")


def _upright(picture: "Image.Image") -> "Image.Image":
    """Turned as its EXIF orientation says; as it lies where that can't be parsed."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # the parser raises whatever it likes on a damaged block, and the pixels are sound
        return picture


class TooLarge(OSError):
    """A picture of more pixels than are read."""


def open_picture(path: Path) -> "ImageFile":
    """Pillow's picture, not yet decoded, of a regular file in one of FORMATS.

    Larger JPEGs are decoded at half size or less; any other of more than 2^26 pixels is refused. Raises
    TooLarge for that, OSError for what is no picture or named as one of UNREAD, and for devices and pipes,
    which would be waited on for ever.
    """
    from PIL import Image, JpegImagePlugin

    if path.suffix.lower() in UNREAD:
        raise OSError(f"{path.suffix.lower()} pictures are not read: convert it to PNG or JPEG")
    # Looked at before it is opened: opening a pipe that nobody writes to already hangs.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is no regular file but a folder, a pipe or a device")
    try:
        opened = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        with path.open("rb") as file:
            begins = file.read(len(JPEG))
        if begins != JPEG:
            raise TooLarge(str(error)) from error
        opened = JpegImagePlugin.JpegImageFile(path)  # which knows no limit: ours follows
    width, height = opened.size
    if width * height > _MOST_PIXELS:
        opened.draft(opened.mode, (width // 2, height // 2))  # does nothing to what isn't JPEG
    if opened.width * opened.height > _MOST_PIXELS:
        opened.close()
        raise TooLarge(f"it has {width} x {height} pixels, {_MOST_PIXELS} at most are read: make it smaller")
    return opened


def fit(picture: "Image.Image", size: int) -> "Image.Image":
    """Shorter side to `size` (antialiased, bilinear), then the centre size x size. For modes "L" and
    "RGB"."""
    from PIL import Image

    if picture.size == (size, size):
        return picture
    picture = _middle(picture)
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _middle(picture: "Image.Image") -> "Image.Image":
    """The picture without the ends of a very long one, so that resizing makes at most _LONGEST * size^2
    pixels: 1 x 300,000 would else become `size` x 300,000 `size`."""
    longest = _LONGEST * min(picture.size)
    width, height = (min(side, longest) for side in picture.size)
    if (width, height) == picture.size:
        return picture
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _eight_bit(picture: "Image.Image") -> "Image.Image":
    """Modes with more than 8 bits, which Pillow's own conversion clips at 255, scaled to "L"."""
    from PIL import Image

    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture).astype(np.float64)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and values.max(initial=0) > 255):
        values = values / 257  # 16 bits: 65535 is white
    elif picture.mode == "F" and values.max(initial=0) <= 1:
        values = values * 255  # a float picture in [0, 1]
    return Image.fromarray(np.rint(np.clip(np.nan_to_num(values), 0, 255)).astype(np.uint8), "L")
