"""Leaf, any process: the C library's `mmap` and its family."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

__all__ = ["check_mapped", "libc"]

libc: Any = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def check_mapped(address: int | None, size: int) -> int:
    """Return what mmap or mremap returned, or raise what went wrong."""
    if address is not None and address != ctypes.c_void_p(-1).value:
        return address
    code = ctypes.get_errno()
    text = f"cannot map {size / 2**20:.1f} MiB of shared memory: {os.strerror(code)}"
    raise MemoryError(text) if code == errno.ENOMEM else OSError(code, text)
