"""Leaf, any process: memory that processes share, without a name; which is which, and how it is sent.

From the bottom up::

    Memory      a file without a name: the bytes, then one page for the lock
    Borrowed    the same, for memory that multiprocessing made
    _Whereabouts  where another process finds the file, which it was not born with

Rules of this file:

* Memory is mapped shared before the fork, and inherited. It has no name, so nothing can be left
  behind however anybody dies, and no resource tracker is started.
* The descriptor is kept because who was not forked after the memory was made needs one to map it: a process
  that is spawned is handed it by multiprocessing; a listener, or a process that serves again, opens it where the
  sender has it (``/proc/<pid>/fd``), so that nothing but a few numbers has to cross any pipe.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import tempfile
import weakref
from multiprocessing import reduction, sharedctypes
from typing import Any, NamedTuple

from taylorism._descriptors import above_stdio
from taylorism._handles import in_handles, note_handed
from taylorism._pages import Pages
from taylorism._robust import RobustLock, new_lock

__all__ = [
    "Borrowed",
    "Memory",
    "borrow",
    "ctypes_array",
    "is_multiprocessing",
]

_PAGE = mmap.PAGESIZE

# All memory that this process knows, by key: a handle finds it here, and it is mapped once.
_known: weakref.WeakValueDictionary[int, Memory | Borrowed] = weakref.WeakValueDictionary()


def _new_key() -> int:
    """Return a number that no other memory has; not a text, whose hash differs by process."""
    return int.from_bytes(os.urandom(16), "big")


class _Whereabouts(NamedTuple):
    """Where a file without a name is open: what another process needs to open it, too."""

    pid: int
    descriptor: int
    identity: tuple[int, int]
    nbytes: int
    frozen: bool

    def open(self) -> int:
        """Return a descriptor of that file."""
        path = f"/proc/{self.pid}/fd/{self.descriptor}"
        # Looked at first: by now the number may be a pipe's or a terminal's, where to open is to wait.
        if _identity(path) != self.identity:
            raise FileNotFoundError(errno.ENOENT, "it is not open there any more", path)
        descriptor = above_stdio(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        if _identity(descriptor) != self.identity:
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "it is not open there any more", path)
        return descriptor


def _recall(key: int, label: str, where: _Whereabouts | None) -> Memory | Borrowed:
    """Return the memory that a pickled handle is for: that which we have, or else the sender's."""
    known = _known.get(key)
    if known is not None:
        return known
    if where is None:
        raise _unreachable(label, "it has no file of its own that another process could open")
    try:
        return Memory.found(key, label, where)
    except OSError as trouble:
        cause = f"it could not be opened in process {where.pid}, which sent it ({trouble})"
        raise _unreachable(label, cause) from None


def _unreachable(label: str, cause: str) -> RuntimeError:
    return RuntimeError(
        f"{label} was sent to a process that does not have its memory: {cause}. Make the array before the Boss,"
        " pass it in sharedmemory_common_instructions, and keep a reference to it"
    )


def _open_file(size: int) -> int:
    """
    Return the descriptor of a new file without a name, `size` bytes long, or -1 for none.

    Never the last descriptors: half of them, at least, are left to the program, and arrays beyond
    are mapped without a file, which only ``spawn`` and ``forkserver`` will notice.
    """
    try:
        descriptor = _nameless_file()
    except OSError:
        return -1
    try:
        if _is_among_the_last(descriptor):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _is_among_the_last(descriptor: int) -> bool:
    """Return whether fewer than half of the descriptors are left beyond this one."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit != resource.RLIM_INFINITY and descriptor >= limit // 2


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return above_stdio(os.memfd_create("taylorism"))
    # macOS: an unlinked temporary file
    with tempfile.TemporaryFile(prefix="taylorism") as file:
        return above_stdio(os.dup(file.fileno()))


def _identity(file: int | str) -> tuple[int, int] | None:
    """Return what tells one file from another, or None for a descriptor that is closed."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _close(descriptor: int, identity: tuple[int, int] | None) -> None:
    """Close a descriptor, unless somebody (a daemon) did, and the number is another's by now."""
    if identity is not None and _identity(descriptor) == identity:
        os.close(descriptor)


def _lock_offset(nbytes: int) -> int:
    """Return where the page of the lock begins, after that many bytes of data."""
    return -(-max(nbytes, 1) // _PAGE) * _PAGE


class Memory:
    """
    Shared memory of our own: the data, then a page for the lock.

    The lock has a page and a mapping to itself, so that it can be written where the data are
    read-only, and may stay where it is for as long as it is held.

    Parameters
    ----------
    descriptor : int
        The file, or -1 for memory without one. It is closed when this object goes.
    nbytes : int
        Size of the data.
    label : str
        What it is for, for messages.
    key : int, optional
        What other processes know it by; made up for new memory.
    lock : object, optional
        The lock that came with it, if it is not in the memory itself.
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "_frozen",
        "_identity",
        "descriptor",
        "key",
        "label",
        "lock",
        "nbytes",
    )

    def __init__(self, descriptor: int, nbytes: int, label: str, key: int | None = None, lock: Any = None) -> None:
        self.descriptor = descriptor
        self._identity = _identity(descriptor)
        weakref.finalize(self, _close, descriptor, self._identity).atexit = False
        self.nbytes = nbytes
        self.label = label
        self.key = key or _new_key()
        self._data = Pages.of(descriptor, 0, max(nbytes, 1))  # 0 bytes cannot be mapped
        self._frozen: Pages | None = None
        self.lock = lock or self._find_lock(fresh=key is None)
        _known[self.key] = self

    @classmethod
    def new(cls, nbytes: int, label: str) -> Memory:
        """Make new memory, full of zeros."""
        memory = cls(_open_file(_lock_offset(nbytes) + _PAGE), nbytes, label)
        memory._data.gather()
        return memory

    @classmethod
    def found(cls, key: int, label: str, where: _Whereabouts) -> Memory:
        """Map the memory of another process, where it has it open."""
        memory = cls(where.open(), where.nbytes, label, key)
        if where.frozen:
            memory.freeze()
        if _is_among_the_last(memory.descriptor):  # it is mapped, and needed no more
            os.close(memory.descriptor)
            memory.descriptor, memory._identity = -1, None
        return memory

    def _find_lock(self, *, fresh: bool) -> Any:
        pages = Pages.of(self.descriptor, _lock_offset(self.nbytes), _PAGE)
        return new_lock(pages, self.label) if fresh else RobustLock(pages, self.label, fresh=False)

    def raw(self, readonly: bool) -> Pages:
        """Return the bytes, for numpy to lay an array over; a read-only mapping of them if asked."""
        if not readonly:
            return self._data
        if self._frozen is None:
            self._frozen = self._data.twin(self.descriptor)
            self._frozen.freeze()
        return self._frozen

    def freeze(self) -> None:
        """Take the right to write away for good, here and in processes forked from now on."""
        self._data.freeze()
        self._frozen = self._data

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> Any:
        if in_handles():
            note_handed(self)
            return _recall, (self.key, self.label, self._whereabouts())
        if not self._has_file():
            raise RuntimeError(
                f"{self.label} has no descriptor left to hand it to a spawned process (too many"
                " files are open, or something has closed it): raise `ulimit -n`, or use the start"
                " method 'fork'"
            )
        lock = None if isinstance(self.lock, RobustLock) else self.lock
        handed: Any = reduction.DupFd(self.descriptor)
        return _attach, (self.key, handed, self.nbytes, self.label, lock, self._is_frozen())

    def _has_file(self) -> bool:
        return self._identity is not None and _identity(self.descriptor) == self._identity

    def _is_frozen(self) -> bool:
        return self._frozen is self._data

    def _whereabouts(self) -> _Whereabouts | None:
        """Return where another process finds this memory; None where it cannot, and must have it already."""
        # A lock that is not in the memory (macOS) is one of multiprocessing, only handed to what it spawns.
        if self._identity is None or not self._has_file() or not isinstance(self.lock, RobustLock):
            return None
        return _Whereabouts(os.getpid(), self.descriptor, self._identity, self.nbytes, self._is_frozen())


def _attach(key: int, handed: Any, nbytes: int, label: str, lock: Any, frozen: bool) -> Memory:
    """Map, in a spawned process, the memory whose descriptor it was given."""
    descriptor = handed.detach()
    known = _known.get(key)
    if isinstance(known, Memory):
        if known.descriptor != descriptor:
            os.close(descriptor)
        return known
    os.set_inheritable(descriptor, False)
    memory = Memory(descriptor, nbytes, label, key, lock)
    if frozen:
        memory.freeze()
    return memory


class Borrowed:
    """
    Shared memory that multiprocessing made: that of an `Array` or a `RawArray`.

    It stays multiprocessing's: it is inherited or sent as multiprocessing does it. Its pages hold
    other objects too and cannot be protected, but mapped a second time, to be read only. A
    `RawArray` has no lock, so it is given one of ours.

    Parameters
    ----------
    source : multiprocessing.sharedctypes.SynchronizedArray or ctypes.Array
        The array.
    key : int, optional
        What other processes know it by; made up if there is none.
    own_lock : Memory, optional
        Where the lock is, if multiprocessing did not make it.
    """

    __slots__ = ("__weakref__", "_bytes", "_frozen", "_own_lock", "_source", "key", "lock")

    def __init__(self, source: Any, key: int | None = None, own_lock: Memory | None = None) -> None:
        self._source = source
        self.key = key or _new_key()
        synchronized = isinstance(source, sharedctypes.SynchronizedArray)
        if not synchronized and own_lock is None:
            own_lock = Memory.new(0, "a multiprocessing.RawArray")
        self._own_lock = own_lock
        self.lock: Any = source.get_lock() if own_lock is None else own_lock.lock
        content = ctypes_array(source)
        self._frozen: Any = None
        self._bytes: Any = (ctypes.c_ubyte * ctypes.sizeof(content)).from_buffer(content)
        _known[self.key] = self
        _loans[id(content)] = self  # it keeps the source alive, so that the number stays its own

    def raw(self, readonly: bool) -> Any:
        """Return the bytes, for numpy to lay an array over; a read-only mapping of them if asked."""
        if not readonly:
            return self._bytes
        if self._frozen is None:
            try:
                self._frozen = Pages.reading(ctypes.addressof(self._bytes), ctypes.sizeof(self._bytes))
            except (OSError, AttributeError):
                # Where pages cannot be mapped twice (macOS), numpy's flag is all that protects them.
                self._frozen = self._bytes
        return self._frozen

    def __hash__(self) -> int:
        return hash((ctypes.addressof(self._bytes), ctypes.sizeof(self._bytes)))

    def __reduce__(self) -> Any:
        if in_handles():
            note_handed(self)
            return _recall, (self.key, "an array of multiprocessing", None)
        return _attach_borrowed, (self._source, self.key, self._own_lock)


_loans: weakref.WeakValueDictionary[int, Borrowed] = weakref.WeakValueDictionary()


def _attach_borrowed(source: Any, key: int, own_lock: Memory | None) -> Borrowed:
    """Take, in a spawned process, what multiprocessing handed over."""
    known = _known.get(key)
    return known if isinstance(known, Borrowed) else Borrowed(source, key, own_lock)


def borrow(source: Any) -> Borrowed:
    """Return the one loan of an array of multiprocessing, so that its handles have one lock."""
    return _loans.get(id(ctypes_array(source))) or Borrowed(source)


def ctypes_array(source: Any) -> Any:
    """Return the ctypes array within an array of multiprocessing."""
    return source.get_obj() if isinstance(source, sharedctypes.SynchronizedArray) else source


def is_multiprocessing(source: object) -> bool:
    """Return whether this is an array of multiprocessing, in shared memory."""
    # A ctypes array that multiprocessing made holds the block of shared memory that it was made in.
    # Any other is private memory, which a worker's writes would not leave.
    if isinstance(source, ctypes.Array):
        return hasattr(source, "_wrapper")
    return isinstance(source, sharedctypes.SynchronizedArray)
