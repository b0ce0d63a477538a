"""What glibc and Linux can be told about memory. Elsewhere nothing happens.

The one place that reaches into the C library; Python has no call for any of it.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

# Parameters of mallopt(3), and what they are in a process that nobody has told otherwise.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
USUAL = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65536}
KEEP_ALL = {TRIM_THRESHOLD: 2**31 - 1, MMAP_MAX: 0}
MADV_PAGEOUT = 21  # of linux/mman.h, since Linux 5.4; Python knows it from 3.13 on


def keep_freed() -> None:
    """Let blocks that are freed stay with the process, for whoever asks next."""
    _mallopt(KEEP_ALL)


def give_back_freed() -> None:
    """End :func:`keep_freed`: free blocks go back to the system, now and from now on."""
    _mallopt(USUAL)
    libc = c_library("malloc_trim")
    if libc is not None:
        libc.malloc_trim(0)


def page_out(address: int, n_bytes: int) -> None:
    """Let the system take back the whole pages inside a stretch of memory; what they hold stays readable.

    Args:
        address: of its first byte.
        n_bytes: its length.
    """
    page = mmap.PAGESIZE
    start, end = -(-address // page) * page, (address + n_bytes) // page * page
    libc = c_library("madvise")
    if libc is not None and end > start:
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_PAGEOUT)


def c_library(function: str) -> ctypes.CDLL | None:
    """The C library of this process, where it is Linux's and has the function."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, function) else None


def _mallopt(values: dict[int, int]) -> None:
    libc = c_library("mallopt")
    if libc is not None:
        for parameter, value in values.items():
            libc.mallopt(parameter, value)
