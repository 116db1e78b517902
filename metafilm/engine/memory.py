"""Keep freed memory in the process while training.

glibc gives every freed block above a few megabytes back to the system, so each activation map is paged in
anew at each step: at 84×84 that costs more than the convolutions. Measured on a 2-core CPU: 15-way 5-shot
miniImageNet steps take 0.59 of the time.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # <malloc.h>


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep large blocks for reuse; False where there is no glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    most = 2**31 - 1  # the argument is an int; a larger threshold can't be said, and is not needed
    return (
        bool(mallopt(_MMAP_MAX, 0))
        and bool(mallopt(_TRIM_THRESHOLD, most))
        and bool(mallopt(_TOP_PAD, 64 * 2**20))
    )
