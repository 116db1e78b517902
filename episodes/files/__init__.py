"""What lies on this machine or comes from another one: the data root, pictures, archives, pickles, downloads.

Nothing read here runs as code, and no file is ever seen half-written.
"""

from episodes.files.download import fetch, unpack_zip
from episodes.files.images import fit, open_picture, read_image, read_images
from episodes.files.pickles import read_image_pickle
from episodes.files.root import data_root, printable, write_atomically

__all__ = [
    "data_root",
    "fetch",
    "fit",
    "open_picture",
    "printable",
    "read_image",
    "read_image_pickle",
    "read_images",
    "unpack_zip",
    "write_atomically",
]
