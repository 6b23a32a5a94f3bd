"""Leaf, any process: shared pages, mapped.

An array of numpy can be laid over a `Pages` by ``numpy.asarray``, and keeps it mapped. This module
does without numpy itself.

Python's own mmap module was tried first: until 3.13 each of its objects keeps a second descriptor,
which it does not show, and it can neither be protected afterwards nor be mapped a second time.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

from taylorism._libc import check_mapped, libc

__all__ = ["Pages", "libc"]


def _huge_page() -> int:
    """Return the size of a huge page, in bytes; 0 where there are none, as far as we can know."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


_HUGE = _huge_page()
_MADV_COLLAPSE = 25  # Linux 6.1; Python's mmap module does not know it yet


def _place_for(size: int) -> int | None:
    """Return an address where huge pages fit, for mmap to begin at if it can."""
    if not 0 < _HUGE <= size:
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = check_mapped(libc.mmap(None, size + _HUGE, 0, flags, -1, 0), size)
    libc.munmap(address, size + _HUGE)
    return -(-address // _HUGE) * _HUGE


def _mapped_again(address: int, size: int) -> int:
    """Map shared pages, from a page's beginning on, a second time; return where."""
    # Linux: an old size of 0 leaves the old mapping in place. 1 is MREMAP_MAYMOVE.
    remap = libc.mremap
    remap.restype = ctypes.c_void_p
    remap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    return check_mapped(remap(address, 0, size, 1), size)


class Pages:
    """
    Pages of a file mapped into this process, for as long as this object or an array over it lives.

    They are bytes for ``numpy.asarray``.

    Parameters
    ----------
    address : int
        Where they were mapped.
    size : int
        How many bytes.
    writable : bool
        Whether the pages may be written.
    """

    __slots__ = ("__array_interface__", "__weakref__", "address", "size")

    def __init__(self, address: int, size: int, writable: bool) -> None:
        self.address = address
        self.size = size
        self._describe(writable)
        # Not at exit, when other exit handlers and threads may still use it: the kernel does it.
        weakref.finalize(self, libc.munmap, address, size).atexit = False

    @classmethod
    def of(cls, descriptor: int, offset: int, size: int) -> Pages:
        """Map `size` bytes of a file from `offset` on, or new memory if the descriptor is -1."""
        flags = mmap.MAP_SHARED if descriptor >= 0 else mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
        offset = offset if descriptor >= 0 else 0
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        address = libc.mmap(_place_for(size), size, protection, flags, descriptor, offset)
        return cls(check_mapped(address, size), size, writable=True)

    @classmethod
    def reading(cls, address: int, size: int) -> Pages:
        """
        Map bytes that are mapped shared already once more, to be read only; whoever mapped them.

        Raises
        ------
        OSError, AttributeError
            If they are not mapped shared, or the system cannot do so.
        """
        before = address % mmap.PAGESIZE
        pages = cls(_mapped_again(address - before, before + size), before + size, writable=True)
        pages.freeze()
        pages._describe(writable=False, offset=before)
        return pages

    def _describe(self, writable: bool, offset: int = 0) -> None:
        # numpy keeps this object alive as the base of the arrays that it makes of this description.
        # It is no writable buffer, so that nobody can set `flags.writeable` of a read-only array
        # back to True.
        self.__array_interface__ = {
            "version": 3,
            "shape": (self.size - offset,),
            "typestr": "|u1",
            "data": (self.address + offset, not writable),
        }

    def gather(self) -> None:
        """
        Put new memory into huge pages, as numpy does with its own arrays, if the system lets us.

        With small ones a sum takes half as long again (100 MiB, measured: 5.0 ms, not 3.3), and so
        does every first look of a worker at the array (16 ms, not 4). To ask for huge pages is not
        enough: by default Linux gives none to shared memory. It does when asked to collapse pages
        that exist, hence one byte is written in each. That also makes the first copy six times
        faster, 13 ms instead of 75. It fails before Linux 6.1, and where memory is in pieces.
        """
        whole = self.size // _HUGE * _HUGE if _HUGE else 0
        if whole:
            libc.madvise(self.address, whole, getattr(mmap, "MADV_HUGEPAGE", 14))
            for address in range(self.address, self.address + whole, _HUGE):
                ctypes.memset(address, 0, 1)
            libc.madvise(self.address, whole, _MADV_COLLAPSE)

    def freeze(self) -> None:
        """Make the pages read-only in this process: a write, through a pointer too, is a fault."""
        if libc.mprotect(self.address, self.size, mmap.PROT_READ):
            code = ctypes.get_errno()
            raise OSError(code, f"cannot protect shared memory: {os.strerror(code)}")
        self._describe(writable=False)

    def twin(self, descriptor: int) -> Pages:
        """Map the same pages, with which the file begins, once more."""
        if descriptor >= 0:
            return Pages.of(descriptor, 0, self.size)
        return Pages(_mapped_again(self.address, self.size), self.size, writable=True)
