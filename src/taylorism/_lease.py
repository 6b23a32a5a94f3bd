"""Leaf, any process: parts of a file, mapped privately, whose memory is given back when nobody needs it any more.

A *lease* is the use that this process makes of a part of a file without a name: a private mapping, writable, whose
pages are the file's own until they are written. When the last object that looks at it is gone, a hole is punched
into the file, and the memory is free at once.

The trap is a fork. What was forked while the mapping was there has it too, and sees the pages of the file: after a
hole it would read zeros, and nobody would notice. So the rules are:

* Only the process that made the lease punches.
* Who forked between the birth and the end of a lease does not punch. The part stays as it is until the file itself
  goes, which the kernel's own count of its users decides.
* Who knows all its children, as the listener does, may punch later: such leases wait in `Graves` until all who were
  forked meanwhile are gone.
* A lease is punched only when it was *settled*: what was opened by someone who was interrupted is opened again.

A file for each report, which the kernel would free by itself when its last user is gone, was considered: it needs
no such rule. But each would hold a descriptor in the listener until main looks, and a main program that looks after
an hour would find the listener without any. Here a Boss has a few files, however many reports there are.

Forks are counted by `os.register_at_fork`. A fork that C code makes behind Python's back is not seen; what was
forked in this way must not use arrays of reports.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Callable, Iterable

from taylorism._pages import check_mapped, libc

__all__ = ["MOST", "Graves", "Lease", "forks"]

#: leases that live at the same time, at most: the kernel allows 65 530 mappings in a process (`vm.max_map_count`),
#: and each fork copies the list of them
MOST = 10_000

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED = 0x10
_MADV_REMOVE = 9

#: forks of this process so far, counted before and after each; and how many are being made right now
_forks = 0
_forking = 0
_counting = False
_living = 0


def forks() -> int:
    """Return a number that grows with each fork of this process; 0 as long as it has had no lease."""
    return _forks


def _count_forks() -> None:
    global _counting
    if not _counting:
        _counting = True
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


# Other threads may run between the three, and look: hence the count goes up on both sides, and what is born in
# between counts as born before.


def _before_fork() -> None:
    global _forks, _forking
    _forking += 1
    _forks += 1


def _after_fork() -> None:
    global _forks, _forking
    _forks += 1
    _forking -= 1


def _in_child() -> None:
    global _forking
    _forking = 0


class Graves:
    """Leases that have ended and may not be punched yet, because of what was forked while they lived."""

    def __init__(self) -> None:
        self._ended: list[Lease] = []

    def __bool__(self) -> bool:
        return bool(self._ended)

    def bury(self, lease: Lease) -> None:
        """Take a lease that has ended."""
        self._ended.append(lease)

    def dig(self, living: Iterable[int]) -> None:
        """Give back what none of the living children can see.

        Parameters
        ----------
        living : iterable of int
            What `forks` returned after each of them was forked.
        """
        living, before, self._ended = list(living), self._ended, []
        for lease in before:
            if any(map(lease.seen_by, living)):
                self._ended.append(lease)
            else:
                lease.punch()


class Lease:
    """The use of a part of a file.

    Parameters
    ----------
    offset, size : int
        Which part, in bytes; `offset` is a multiple of the size of a page.
    punch : callable
        Punches the hole, while the file is open.
    graves : Graves, optional
        Where to go when it may not be punched at once.
    """

    def __init__(
        self, offset: int, size: int, punch: Callable[[int, int], object], graves: Graves | None = None
    ) -> None:
        _count_forks()
        self.offset = offset
        self.size = size
        self._punch = punch
        self._graves = graves
        self._pid = os.getpid()
        self._born = -1 if _forking else _forks  # before it is mapped: a fork by another thread counts
        self._died = -1
        self._mapped = False
        self._settled = False
        self._handle: int | None = None

    def map(self, descriptor: int) -> memoryview:
        """Return the bytes, writable; who looks at them keeps them, and the lease ends with the last.

        Raises
        ------
        OSError, MemoryError
            The system has no room for the mapping.
        """
        # An object of Python's mmap module, because it is a buffer that knows who looks at it. It would keep a
        # second descriptor for a file before 3.13, so it is made without one, and the file is laid over it.
        global _living
        if _living >= MOST:
            raise MemoryError(f"more than {MOST} parts of files are mapped")
        memory = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        flags = mmap.MAP_PRIVATE | _MAP_FIXED
        check_mapped(libc.mmap(address, self.size, _READ_WRITE, flags, descriptor, self.offset), self.size)
        _living += 1
        self._mapped = True
        weakref.finalize(memory, self.end).atexit = False
        return memoryview(memory)

    def settle(self) -> None:
        """Allow the memory to be given back: what was read here will not be read again."""
        self._settled = True
        if self._died >= 0:
            self._give_back()

    def end(self) -> None:
        """Note that nobody looks at it any more."""
        global _living
        if self._pid != os.getpid():
            return
        _living -= self._mapped
        self._died = _forks
        if self._settled:
            self._give_back()
        elif self._handle is not None:
            self._let_go()

    def _give_back(self) -> None:
        if self._pid != os.getpid():
            return
        if self._died == self._born and not _forking:
            self.punch()
        elif self._graves is not None:
            self._graves.bury(self)
        else:
            self._let_go()

    def seen_by(self, child: int) -> bool:
        """Whether a child has this part, for which `forks` returned that number."""
        return self._born < child <= self._died

    # -- without the file -----------------------------------------------------------------------------

    def outlive(self, descriptor: int) -> None:
        """Prepare for the end of the file's descriptor.

        A shared mapping can be punched without one, so that arrays that are kept, of a thousand Bosses, cost no
        descriptors. Nothing is read or written through it: it takes no memory.
        """
        if self._died >= 0:
            return
        address = libc.mmap(None, self.size, _READ_WRITE, mmap.MAP_SHARED, descriptor, self.offset)
        if address not in (None, ctypes.c_void_p(-1).value):
            self._handle = address

    def punch(self) -> None:
        """Give the memory back, whoever sees it."""
        if self._handle is None:
            self._punch(self.offset, self.size)
            return
        size = -(-self.size // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(self._handle, size, _MADV_REMOVE)
        self._let_go()

    def _let_go(self) -> None:
        if self._handle is not None:
            libc.munmap(self._handle, self.size)
            self._handle = None
