"""Leaf, any process: parts of a file, mapped privately, whose memory is given back when nobody needs it any more.

A *lease* is the use that this process makes of a part of a file without a name: a private mapping, writable, whose
pages are the file's own until they are written. When the last object that looks at it is gone, a hole is punched
into the file, and the memory is free at once.

The trap is a fork. What was forked while the mapping was there has it too, and sees the pages of the file: after a
hole it would read zeros, and nobody would notice. So the rules are:

* Only the process that made a lease punches.
* Nor does that one, once it has forked. The part stays as it is until the file itself goes, which the kernel's own
  count of its users decides.
* Who knows all its children, as the listener does, may punch later: its leases are `Tracked`, and wait in `Graves`
  until all who were forked meanwhile are gone.
* A lease is punched only when it was *settled*: what was opened by someone who was interrupted is opened again.

A file for each report, which the kernel would free by itself when its last user is gone, was considered: it needs
no such rule. But each would hold a descriptor in the listener until main looks, and a main program that looks after
an hour would find the listener without any. Here a Boss has a few files, however many reports there are.

Forks are seen by `os.register_at_fork`. One that C code makes behind Python's back is not; what was forked in this
way must not use arrays of reports.

What is done in main when an array goes, or a fork comes, is done by functions in C alone (``partial``, ``ctypes``,
``dict.clear``). A signal handler may raise between two steps of Python; in a finalizer, that exception would be
lost, and with it a Ctrl-C or the user's time limit. To punch 128 MiB takes 15 ms, so that this would happen.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from taylorism._libc import check_mapped, libc

__all__ = ["FEW", "MOST", "Graves", "Lease", "Tracked", "forks", "private"]

#: leases that live at the same time, at most: the kernel allows 65 530 mappings in a process (`vm.max_map_count`),
#: and each fork copies the list of them
MOST = 10_000

#: leases that are too few to look through them
FEW = 64

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED = 0x10
_MADV_REMOVE = 9


class _Ref(weakref.ref):  # type: ignore[type-arg]
    """A weak reference that a function of the C library takes as one argument more, which it does not look at."""

    __slots__ = ()
    _as_parameter_ = 0


#: what is called when the memory of a lease goes, by the number of the lease: to unmap its handle, and to punch
_held: dict[int, _Ref] = {}
_armed: dict[int, _Ref] = {}
_numbers = itertools.count()
_many = FEW


# ---------------------------------------------------------------------------------------------------------
# forks
# ---------------------------------------------------------------------------------------------------------

#: a byte for each fork of this process that was begun, and that is over; `bytearray.append` is a function in C
_begun = bytearray()
_over = bytearray()
_counting = False


def forks() -> int:
    """Return a number that grows with each fork of this process; 0 as long as it has had no lease."""
    return len(_begun) + len(_over)


def _forking() -> bool:
    """Whether another thread forks right now."""
    return len(_begun) > len(_over)


def _see_forks() -> None:
    # Other threads may run between these, and look: hence both sides are counted, and what is born in between
    # counts as born before. What is registered first is called last, before a fork.
    global _counting
    if not _counting:
        over = partial(_over.append, 0)
        os.register_at_fork(before=_armed.clear)
        os.register_at_fork(before=partial(_begun.append, 0), after_in_parent=over, after_in_child=over)
        _counting = True  # last: to register twice does no harm


# ---------------------------------------------------------------------------------------------------------
# leases
# ---------------------------------------------------------------------------------------------------------


def private(descriptor: int, offset: int, size: int) -> mmap.mmap:
    """Map a part of a file privately."""
    # An object of Python's mmap module, because it is a buffer that knows who looks at it. It would keep a second
    # descriptor for a file before 3.13, so it is made without one, and the file is laid over it.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    flags = mmap.MAP_PRIVATE | _MAP_FIXED
    check_mapped(libc.mmap(address, size, _READ_WRITE, flags, descriptor, offset), size)
    return memory


def _sweep() -> None:
    """Forget leases that have ended, each time that there are twice as many as there were left."""
    global _many
    if len(_held) >= min(_many, MOST):
        for number, ref in list(_held.items()):
            if ref() is None:
                _armed.pop(number, None)
                _held.pop(number, None)
        _many = 2 * len(_held) + FEW


class Lease:
    """The use of a part of a file, given back as soon as nobody looks at it.

    Parameters
    ----------
    descriptor : int
        The file.
    offset, size : int
        Which part, in bytes; `offset` is a multiple of the size of a page.
    punch : callable
        Gives the memory of a part back, while the file is open. It is called by `settle` at most.

    Raises
    ------
    OSError, MemoryError
        The system has no room for the mapping.

    Attributes
    ----------
    view : memoryview or None
        The bytes, writable. Who takes them sets this to None; the lease ends with the last who looks.
    """

    def __init__(self, descriptor: int, offset: int, size: int, punch: Callable[[int, int], Any]) -> None:
        _sweep()
        if len(_held) >= MOST:
            raise MemoryError(f"more than {MOST} parts of files are mapped")
        _see_forks()
        self.offset = offset
        self.size = size
        self._punch = punch
        self._given_back = False
        self._pid = os.getpid()
        self._born = -1 if _forking() else forks()  # before it is mapped: a fork by another thread counts
        self._number = next(_numbers)
        memory = private(descriptor, offset, size)
        self._ref = weakref.ref(memory)
        self._handle = self._map_handle(descriptor, memory)
        self.view: memoryview | None = memoryview(memory)

    def _map_handle(self, descriptor: int, memory: mmap.mmap) -> int:
        """Map the part once more, shared: it can then be punched without a descriptor.

        Arrays that are kept, of a thousand Bosses, would else cost as many descriptors. Nothing is read or written
        through this mapping, and it takes no memory. A fork has it too, and unmaps its own.
        """
        address = libc.mmap(None, self.size, _READ_WRITE, mmap.MAP_SHARED, descriptor, self.offset)
        handle = check_mapped(address, self.size)
        _held[self._number] = _Ref(memory, partial(libc.munmap, handle, self.size))
        return handle

    def settle(self) -> None:
        """Allow the memory to be given back: what was read here will not be read again."""
        memory = self._ref()
        if memory is None:
            self._settle_late()
            return
        # The callbacks of an object are called from the newest to the oldest: this one, then that of the handle.
        whole_pages = -(-self.size // mmap.PAGESIZE) * mmap.PAGESIZE
        _armed[self._number] = _Ref(memory, partial(libc.madvise, self._handle, whole_pages, _MADV_REMOVE))
        if not self._alone:  # after it was armed: a fork by another thread disarms it, or is seen here
            _armed.pop(self._number, None)

    def _settle_late(self) -> None:
        """Give back at once what nobody looks at any more: the pickle, for instance."""
        if self._alone and not self._given_back:
            self._given_back = True
            self._punch(self.offset, self.size)

    @property
    def _alone(self) -> bool:
        """Whether nobody was forked who has this part."""
        return self._born == forks() and not _forking() and self._pid == os.getpid()

    @property
    def kept(self) -> bool:
        """Whether somebody looks at it, or may, a fork for instance."""
        given_back = self._given_back or (self._ref() is None and self._number in _armed)
        return not given_back


class Graves:
    """What has ended and may not be punched yet, because of what was forked while it lived."""

    def __init__(self) -> None:
        self._ended: list[Tracked] = []

    def __bool__(self) -> bool:
        return bool(self._ended)

    def bury(self, lease: Tracked) -> None:
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


class Tracked:
    """The use of a part of a file by a process that knows its children.

    Parameters
    ----------
    descriptor, offset, size
        As of `Lease`.
    punch : callable
        Gives the memory of a part back.
    graves : Graves
        Where to go in the end.
    """

    def __init__(
        self, descriptor: int, offset: int, size: int, punch: Callable[[int, int], Any], graves: Graves
    ) -> None:
        _see_forks()
        self.punch = partial(punch, offset, size)
        self._graves = graves
        self._pid = os.getpid()
        self._born = forks()
        self._died = -1
        memory = private(descriptor, offset, size)
        weakref.finalize(memory, self._end).atexit = False
        self.view: memoryview | None = memoryview(memory)

    def settle(self) -> None:
        """Do nothing: it was so from the beginning."""

    def _end(self) -> None:
        if self._pid == os.getpid():
            self._died = forks()
            self._graves.bury(self)

    def seen_by(self, child: int) -> bool:
        """Whether a child has this part, for which `forks` returned that number."""
        return self._born < child <= self._died
