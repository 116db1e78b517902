"""Kernels in C: the source, the library built of it at first use, and its functions on tensors."""

from metafilm.engine.native.functions import MOST_CHANNELS, fits
from metafilm.engine.native.library import Status, library, status

__all__ = ["MOST_CHANNELS", "Status", "fits", "library", "status"]
