"""Leaf, any process: the files without a name in which big buffers cross from one process to another.

A `Hold` belongs to a Boss. Main makes it before the listener starts, and all processes of the Boss inherit it. It
is a few memfds, the *lanes*: lane 0 for instructions, which main writes; the others for reports, which workers
write. (The kernel locks a file while it is written, so that two workers on one lane take turns: on 2 cpus,
2 400 MiB/s in all, where 4 200 were written on two lanes.)

Nobody asks for room. A file may be as long as 2**63 bytes, and what was not written takes no memory. So each launch
of a worker has a *berth* of 512 GiB to itself, which follows from its number alone, and main has one for each call
of `set_instructions`. What a worker has left that was killed while it wrote is in its berth, and nowhere else.

Written by `os.pwrite`, which is nearly twice as fast here as to map and copy (128 MiB: 55 ms, not 100): no page is
made by a fault, nor filled with zeros first. Nothing is reserved beforehand, and memory is not asked for: the way
through the pipe, to which a refusal of the system leads, needs it twice over, in the listener and in main.

Where the system has no memfd, a file in ``/dev/shm`` that is made without a name (`O_TMPFILE`) does as well. Where
that is not to be had either (macOS) there is no hold, and big buffers take the pipe: files on a disk would be
written to the disk, and not every file system leaves out what was not written.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import resource
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from taylorism._descriptors import close_all, keep_above_stdio
from taylorism._lease import FEW, Graves, Lease, Tracked, private
from taylorism._libc import libc

__all__ = ["Berth", "Copy", "Extent", "Hold", "NoRoom", "Original", "Use"]

#: where a buffer is: offset and length, in bytes
Extent = tuple[int, int]

#: the use of an extent by a process
Use: TypeAlias = "Lease | Tracked | Copy"

#: bytes of a berth, and of a file at most
BERTH = 1 << 39
_LONGEST = (1 << 63) - 1
#: lanes for reports, at most; there is one for each cpu
_LANES = 8
#: buffers from this size on are mapped by themselves, so that each gives its memory back by itself
ALONE = 1 << 20

_SHM = "/dev/shm"  # noqa: S108 - for a file without a name, which nobody else can open
_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE


class NoRoom(Exception):
    """The system does not take the bytes; the text says why."""


class Hold:
    """The lanes. There are none before it is opened, and none after it was closed.

    Parameters
    ----------
    descriptors : sequence of int
        Of files that are open; in this process, this object is their owner.

    Attributes
    ----------
    descriptors : list of int
        Those of the files.
    """

    def __init__(self, descriptors: Sequence[int] = ()) -> None:
        self.descriptors = list(descriptors)
        self._identities = {each: _identity(each) for each in descriptors}
        self._numbers = itertools.count()
        self._leases: dict[tuple[int, int], Lease] = {}
        self._many = FEW
        self._pid = os.getpid()
        weakref.finalize(self, close_all, self.descriptors).atexit = False

    def open(self) -> bool:
        """Make the files; return whether there are any: the system may have none, or no descriptors to spare."""
        with suppress(_Refused):
            while len(self.descriptors) < 1 + min(_LANES, _cpus()):
                _add_file(self.descriptors)
        if len(self.descriptors) < 2:
            close_all(self.descriptors)
        self._identities = {each: _identity(each) for each in self.descriptors}
        return bool(self.descriptors)

    # -- berths ---------------------------------------------------------------------------------------

    def berth(self, number: int) -> Berth | None:
        """Return the berth of the launch of that number, None where there is none left."""
        lanes = len(self.descriptors) - 1
        return self._berth(1 + number % lanes, number // lanes) if lanes > 0 else None

    def own_berth(self) -> Berth | None:
        """Return a new berth for instructions."""
        return self._berth(0, next(self._numbers)) if self.descriptors else None

    def _berth(self, lane: int, place: int) -> Berth | None:
        start = place * BERTH
        return Berth(self, lane, start) if start + BERTH <= _LONGEST else None

    # -- bytes ----------------------------------------------------------------------------------------

    def write(self, lane: int, offset: int, buffer: Any) -> None:
        """Write a buffer.

        Raises
        ------
        OSError
            The system does not take it.
        """
        descriptor, view, done = self.descriptor(lane), memoryview(buffer), 0
        while done < len(view):
            written = os.pwrite(descriptor, view[done:], offset + done)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += written

    def take(self, start: int, other: Hold, lane: int, extent: Extent) -> None:
        """Copy from another hold to a place in the first lane, within the system (Linux)."""
        offset, size = extent
        done = os.lseek(self.descriptor(0), start, os.SEEK_SET) - start
        while done < size:
            moved = os.sendfile(self.descriptor(0), other.descriptor(lane), offset + done, size - done)
            if not moved:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += moved

    def read(self, lane: int, offset: int, size: int) -> memoryview:
        """Return a copy, writable."""
        descriptor, view, done = self.descriptor(lane), memoryview(bytearray(size)), 0
        while done < size:
            done += os.preadv(descriptor, [view[done:]], offset + done) or size  # 0 at the end of the file
        return view

    def lease(self, lane: int, offset: int, size: int) -> Lease | Copy:
        """Return the use of some bytes that are this process's own from now on: a mapping, or else a copy."""
        try:
            lease = Lease(self.descriptor(lane), offset, size, partial(self.punch, lane))
        except (OSError, MemoryError):
            return self._copy(lane, offset, size)
        self._sweep()
        self._leases[lane, offset] = lease
        return lease

    def track(self, graves: Graves, lane: int, offset: int, size: int) -> Tracked | Copy:
        """Return the use of some bytes which the children of this process are going to see as well."""
        try:
            return Tracked(self.descriptor(lane), offset, size, partial(self.punch, lane), graves)
        except (OSError, MemoryError):
            return self._copy(lane, offset, size)

    def _copy(self, lane: int, offset: int, size: int) -> Copy:
        return Copy(self.read(lane, offset, size), partial(self.punch, lane, offset, size))

    def _sweep(self) -> None:
        """Forget leases that have ended, each time that there are twice as many as there were left."""
        if len(self._leases) >= self._many:
            self._leases = {key: lease for key, lease in self._leases.items() if lease.kept}
            self._many = 2 * len(self._leases) + FEW

    def punch(self, lane: int, offset: int, size: int) -> None:
        """Give back the memory of a part; nothing where the files are closed."""
        with suppress(OSError):
            descriptor = self.descriptor(lane)
            size = min(_whole_pages(size), _LONGEST - offset)
            libc.fallocate(descriptor, _PUNCH, ctypes.c_long(offset), ctypes.c_long(size))

    def descriptor(self, lane: int) -> int:
        """Return the descriptor of a lane, if nobody has closed it: the number may be another file's by now."""
        descriptor = self.descriptors[lane] if lane < len(self.descriptors) else -1
        if descriptor >= 0 and self._is_ours(descriptor):
            return descriptor
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    # -- the end --------------------------------------------------------------------------------------

    def drop(self) -> None:
        """In main: give back all reports that nobody looks at, and close the files; harmless when repeated.

        Instructions are left alone: workers that nobody hears any more may go on with them.
        """
        if self._pid == os.getpid():
            for lane, descriptor in enumerate(self.descriptors[1:], 1):
                if _has_bytes(descriptor):  # in most, nobody has ever put anything
                    self._drop_lane(lane)
        self.close()

    def _drop_lane(self, lane: int) -> None:
        leases = [lease for (where, _), lease in sorted(self._leases.items()) if where == lane]
        for start, end in _gaps(leases):
            self.punch(lane, start, end - start)

    def close(self) -> None:
        """Close the files in this process; to be repeated where it was interrupted."""
        self.descriptors[:] = filter(self._is_ours, self.descriptors)  # a daemon may have closed some
        close_all(self.descriptors)

    def _is_ours(self, descriptor: int) -> bool:
        return descriptor not in self._identities or _identity(descriptor) == self._identities[descriptor]


class Copy:
    """A copy of some bytes, where they cannot be mapped.

    Parameters
    ----------
    view : memoryview or None
        The copy; as of `Lease`.
    punch : callable
        Gives back the memory of the original.
    """

    def __init__(self, view: memoryview, punch: Callable[[], object]) -> None:
        self.view: memoryview | None = view
        self._punch = punch

    def settle(self) -> None:
        """Give back the memory: what was read here will not be read again."""
        self._punch()


class Original:
    """Parts of a hold that are looked at again and again, each time as they were.

    They are copied once, to a file of this process's own, and mapped privately from there: what is written to a
    mapping is its owner's. Of that file nothing is given back, and a mapping outlives it. Where there is no such
    file, they are copied each time.

    Parameters
    ----------
    hold : Hold
        Where they are.
    lane : int
        In which file.
    extents : sequence of tuple of two int
        Which parts.
    """

    def __init__(self, hold: Hold, lane: int, extents: Sequence[Extent]) -> None:
        self._hold, self._lane = hold, lane
        starts = itertools.accumulate((_whole_pages(size) for _, size in extents), initial=0)
        self._parts = list(zip(starts, extents, strict=False))  # the last start is the end of all
        self._own = Hold()

    def views(self) -> list[memoryview]:
        """Return them, writable."""
        try:
            if not self._own.descriptors:
                self._own = self._copied()
            return [self._mapped(start, size) for start, (_, size) in self._parts]
        except (_Refused, OSError, MemoryError):
            return [self._hold.read(self._lane, *extent) for _, extent in self._parts]

    def _copied(self) -> Hold:
        made: list[int] = []
        _add_file(made)
        own = Hold(made)
        for start, extent in self._parts:
            own.take(start, self._hold, self._lane, extent)
        return own

    def _mapped(self, start: int, size: int) -> memoryview:
        return memoryview(private(self._own.descriptor(0), start, size))

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._own.close()


class Berth:
    """Where one worker, or one call, puts its buffers.

    Parameters
    ----------
    hold : Hold
        What it is a part of.
    lane : int
        In which file.
    start : int
        Offset of its first byte.
    """

    def __init__(self, hold: Hold, lane: int, start: int) -> None:
        self._hold = hold
        self.lane = lane
        self._start = self._next = start
        self._end = start + BERTH

    def stow(self, buffers: Sequence[Any]) -> list[Extent]:
        """Write buffers; return where each of them is.

        The small ones come first, side by side, so that they can be mapped together.

        Raises
        ------
        NoRoom
            The system does not take them; nothing of them is left.
        """
        extents, end = self._laid_out([len(each) for each in buffers])
        self._check(end)
        try:
            for (offset, _), buffer in zip(extents, buffers, strict=True):
                self._hold.write(self.lane, offset, buffer)
        except BaseException as trouble:
            self._hold.punch(self.lane, self._next, end - self._next)
            if isinstance(trouble, OSError) and trouble.errno is not None:  # else it is of a handler of the user's
                raise NoRoom(trouble.strerror) from None
            raise
        self._next = end
        return extents

    def _laid_out(self, sizes: Sequence[int]) -> tuple[list[Extent], int]:
        """Return where to put buffers of these sizes, and where they end."""
        extents, end = [(0, 0)] * len(sizes), self._next
        for which in sorted(range(len(sizes)), key=lambda which: sizes[which] >= ALONE):
            extents[which] = end, sizes[which]
            end += _whole_pages(sizes[which])
        return extents, end

    def _check(self, end: int) -> None:
        """Refuse what the user's limit of file sizes forbids; the system would send a signal that ends programs."""
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY and end > limit:
            raise NoRoom("the size of files is limited (ulimit -f)")
        if end > self._end:
            raise NoRoom(f"it is more than {BERTH >> 30} GiB")

    def empty(self) -> None:
        """Give back all that it was used for, and was not handed on."""
        self._hold.punch(self.lane, self._start, self._end - self._start)

    def hand_on(self, extents: Sequence[Extent]) -> None:
        """Note that some of what is in there is somebody else's from now on, and all that was there before."""
        self._start = max(self._start, *(offset + _whole_pages(size) for offset, size in extents))


class _Refused(Exception):
    """The system makes no more files of this kind."""


def _add_file(noted: list[int]) -> None:
    """Make a file without a name; its descriptor is added in the same call into C (see `_descriptors`)."""
    before = len(noted)
    for make, *arguments in _ways():
        with suppress(OSError):
            noted.extend(map(make, *((each,) for each in arguments)))
        if len(noted) > before:
            break
    else:
        raise _Refused
    if _is_one_of_the_last(keep_above_stdio(noted)):
        any(map(os.close, map(noted.pop, (-1,))))
        raise _Refused


def _ways() -> list[tuple[Any, ...]]:
    """Return the calls that make a file, the best first; each may be forbidden, or unknown to the kernel."""
    ways: list[tuple[Any, ...]] = []
    if hasattr(os, "memfd_create"):
        ways.append((os.memfd_create, "taylorism-hold"))
    if hasattr(os, "O_TMPFILE"):
        ways.append((os.open, _SHM, os.O_TMPFILE | os.O_RDWR, 0o600))
    return ways


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_one_of_the_last(descriptor: int) -> bool:
    """Whether a descriptor is one of those that are left to the program, half of them."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit != resource.RLIM_INFINITY and descriptor >= limit // 2


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _has_bytes(descriptor: int) -> bool:
    try:
        return os.fstat(descriptor).st_blocks > 0
    except OSError:
        return False


def _gaps(leases: Iterable[Lease]) -> Iterator[Extent]:
    """Yield the beginning and the end of each part that is between leases, which are sorted."""
    start = 0
    for lease in leases:
        if lease.offset > start:
            yield start, lease.offset
        start = lease.offset + _whole_pages(lease.size)
    yield start, _LONGEST

