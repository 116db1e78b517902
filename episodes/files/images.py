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

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# What Pillow may take a file for, whatever its name says. Others start programs: Ghostscript for an EPS file.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# Above the 108 million of a telephone. Decoding and laying on white take up to 12 bytes for each, 1.6 GB.
MAX_PIXELS = 1 << 27
_ASPECT = 16  # from this ratio of the sides on, a picture is cropped before it is resized
_STRIP = 1 << 20  # pixels brought to 8 bits at a time


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


def open_picture(path: Path) -> "Image.Image":
    """The picture in a file of one of FORMATS, its pixels not yet decoded; for use in a `with`.

    Raises OSError when it is no regular file (opening a pipe would wait for its writer for ever), of no such
    format, or has more than MAX_PIXELS: a few hundred bytes can announce more pixels than there is memory.
    """
    from PIL import Image

    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is a folder, pipe or device, no file of a picture")
    try:
        opened = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise OSError(f"{error}; scale it down to at most {MAX_PIXELS} pixels") from error
    if opened.width * opened.height > MAX_PIXELS:
        size = f"{opened.width} x {opened.height}"
        opened.close()
        raise OSError(f"it has {size} pixels; scale it down to at most {MAX_PIXELS}")
    return opened


def read_image(path: Path, channels: int = 3, size: int = 84, invert: bool = False) -> np.ndarray:
    """A picture of any size and mode as uint8 [channels, size, size].

    channels: 3 (RGB) or 1 (grey). Turned as its EXIF orientation says; transparency lies on white; 16-bit and
    float pictures are brought to 8 bits; the shorter side is resized to `size` (antialiased, bilinear), the
    centre cropped. invert: 255 - value, for ink on paper where ink on black is expected (Omniglot). Raises
    OSError when it is no picture or too large a one.
    """
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise EpisodesError(f"pictures have 1 (grey) or 3 (RGB) channels, not {channels}")
    with open_picture(path) as opened:
        opened.load()
        picture = ImageOps.exif_transpose(opened)
    picture = _eight_bit(picture)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    # Before resizing: Pillow silently falls back to nearest neighbour on modes "1" and "P".
    picture = picture.convert("L" if channels == 1 else "RGB")
    picture = fit(picture, size)
    pixels = np.asarray(picture, np.uint8).reshape(size, size, channels).transpose(2, 0, 1)
    return 255 - pixels if invert else np.ascontiguousarray(pixels)


def fit(picture: "Image.Image", size: int) -> "Image.Image":
    """Shorter side to `size` (antialiased, bilinear), then the centre size x size. For modes "L" and "RGB".

    Of a long thin picture only the centre is computed: resized whole, 1 x 300,000 would come to gigabytes.
    """
    from PIL import Image

    if picture.size == (size, size):
        return picture
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > _ASPECT * size * size:
        across, down = picture.width / width, picture.height / height  # source pixels a pixel of the result
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return picture.resize((size, size), Image.Resampling.BILINEAR, box)
    # Not by a box: Pillow rounds its corners to float32, which moves pixels by a grey level here and there.
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return picture.crop((left, top, left + size, top + size))


def _eight_bit(picture: "Image.Image") -> "Image.Image":
    """Modes with more than 8 bits, which Pillow's own conversion clips at 255, scaled to "L"."""
    from PIL import Image

    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    brightest = values.max(initial=0)
    unit = 1.0
    if picture.mode.startswith("I;16") or (picture.mode == "I" and brightest > 255):
        unit = 1 / 257  # 16 bits: 65535 is white
    elif picture.mode == "F" and brightest <= 1:
        unit = 255.0  # a float picture in [0, 1]
    grey = np.empty(values.shape, np.uint8)
    flat, source = grey.reshape(-1), values.reshape(-1)
    for start in range(0, len(flat), _STRIP):  # float64 of the whole would be eight times the result
        strip = source[start : start + _STRIP].astype(np.float64) * unit
        flat[start : start + _STRIP] = np.rint(np.clip(np.nan_to_num(strip), 0, 255))
    return Image.fromarray(grey, "L")
