"""Kernels in C: the source, the library built of it at first use, and its functions on tensors."""

from metafilm.engine.native.functions import fits
from metafilm.engine.native.library import library

__all__ = ["fits", "library"]
