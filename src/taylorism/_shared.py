"""
World: none, a leaf; the one module that imports numpy. Arrays in memory that all processes share.

From the bottom up::

    _Mapping            some pages, mapped; what numpy arrays are laid over
    RobustLock          a lock that lives in such pages, and outlives its holder
    _Memory             a file without a name: the bytes, then one page for the lock
    _Borrowed           the same, for memory that multiprocessing made
    SharedNumpyArray    a handle on one of them, which looks like the ndarray laid over it

Rules of this file:

* Memory is mapped shared before the fork, and inherited. It has no name, so nothing can be left
  behind however anybody dies, and no resource tracker is started.
* The descriptor is kept only because ``spawn`` and ``forkserver`` need one to hand the memory over.
* The control plane of taylorism never takes a lock of this file.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import errno
import fcntl
import logging
import math
import mmap
import multiprocessing
import operator
import os
import resource
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import context, reduction, sharedctypes
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RobustLock", "SharedNumpyArray", "UnsharableError", "by_handle"]

logger = logging.getLogger("taylorism")

_PAGE = mmap.PAGESIZE
_ALIGNMENT = 64  # bytes, of the mask that follows the data: a cache line, and any dtype's alignment


class UnsharableError(TypeError, NotImplementedError):
    """
    These elements cannot be shared between processes.

    Raised for arrays of Python objects and of variable-width strings: the memory holds addresses,
    which mean nothing in another process. Convert the array to a dtype of fixed size first. It is a
    `NotImplementedError` too, because that is what taylorism 1.1 raised.
    """


# --- The C library --------------------------------------------------------------------------------


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


# Python's own mmap module was tried first: until 3.13 each of its objects keeps a second
# descriptor, which it does not show, and it can neither be protected afterwards nor be mapped a
# second time.
_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _check_mapped(address: int | None, size: int) -> int:
    """Return what mmap or mremap returned, or raise what went wrong."""
    if address is not None and address != ctypes.c_void_p(-1).value:
        return address
    code = ctypes.get_errno()
    text = f"cannot map {size / 2**20:.1f} MiB of shared memory: {os.strerror(code)}"
    raise MemoryError(text) if code == errno.ENOMEM else OSError(code, text)


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
    address = _check_mapped(_libc.mmap(None, size + _HUGE, 0, flags, -1, 0), size)
    _libc.munmap(address, size + _HUGE)
    return -(-address // _HUGE) * _HUGE


class _Mapping:
    """
    Pages of a file mapped into this process, for as long as this object or an array over it lives.

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
        weakref.finalize(self, _libc.munmap, address, size).atexit = False

    @classmethod
    def of(cls, descriptor: int, offset: int, size: int) -> _Mapping:
        """Map `size` bytes of a file from `offset` on, or new memory if the descriptor is -1."""
        flags = mmap.MAP_SHARED if descriptor >= 0 else mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
        offset = offset if descriptor >= 0 else 0
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        address = _libc.mmap(_place_for(size), size, protection, flags, descriptor, offset)
        return cls(_check_mapped(address, size), size, writable=True)

    def _describe(self, writable: bool) -> None:
        # numpy keeps this object alive as the base of the arrays that it makes of this description.
        # It is no writable buffer, so that nobody can set `flags.writeable` of a read-only array
        # back to True.
        self.__array_interface__ = {
            "version": 3,
            "shape": (self.size,),
            "typestr": "|u1",
            "data": (self.address, not writable),
        }

    def raw(self) -> NDArray[np.uint8]:
        """Return the bytes, as an array that keeps the pages mapped."""
        return np.asarray(self)

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
            _libc.madvise(self.address, whole, getattr(mmap, "MADV_HUGEPAGE", 14))
            self.raw()[:whole:_HUGE] = 0
            _libc.madvise(self.address, whole, _MADV_COLLAPSE)

    def freeze(self) -> None:
        """Make the pages read-only in this process: a write, through a pointer too, is a fault."""
        if _libc.mprotect(self.address, self.size, mmap.PROT_READ):
            code = ctypes.get_errno()
            raise OSError(code, f"cannot protect shared memory: {os.strerror(code)}")
        self._describe(writable=False)

    def twin(self, descriptor: int) -> _Mapping:
        """Map the same pages, with which the file begins, once more."""
        if descriptor >= 0:
            return _Mapping.of(descriptor, 0, self.size)
        # Linux: an old size of 0 leaves the old mapping in place. 1 is MREMAP_MAYMOVE.
        remap = _libc.mremap
        remap.restype = ctypes.c_void_p
        remap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
        address = remap(self.address, 0, self.size, 1)
        return _Mapping(_check_mapped(address, self.size), self.size, writable=True)


# --- The lock -------------------------------------------------------------------------------------


class _Pthread:
    """
    The functions of the thread library that a `RobustLock` needs.

    `AttributeError` is raised where one is missing. The numbers are those of Linux, with glibc and
    with musl; the sizes are upper bounds, since a mutex is 24 to 64 bytes long there, and only the
    library looks inside.
    """

    PROCESS_SHARED = ROBUST = 1
    ERROR_CHECK = 2
    MUTEX_BYTES = 256
    ATTRIBUTE_BYTES = 64

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise AttributeError("robust mutexes are trusted on Linux only")
        # What never blocks goes through PyDLL, which keeps the interpreter's lock: twice as fast.
        quick: Any = ctypes.PyDLL(None)
        self.trylock = self._taking(quick.pthread_mutex_trylock)
        self.unlock = self._taking(quick.pthread_mutex_unlock)
        self.consistent = self._taking(quick.pthread_mutex_consistent)
        self._library = quick
        for name in ("init", "setpshared", "setrobust", "settype", "destroy"):
            getattr(quick, f"pthread_mutexattr_{name}")
        self.now, self.wait_until = self._waiting()

    @staticmethod
    def _taking(function: Any, *more: Any) -> Any:
        function.argtypes = [ctypes.c_void_p, *more]
        return function

    def _waiting(self) -> tuple[Callable[[], float], Callable[[Any, Any], int]]:
        """Return the clock to wait by, and the function that waits for a mutex until then."""
        moment = ctypes.POINTER(_Timespec)
        try:
            wait = self._taking(_libc.pthread_mutex_clocklock, ctypes.c_int, moment)
        except AttributeError:
            # glibc before 2.30, and musl: the wall clock, which may jump. The slices are short.
            return time.time, self._taking(_libc.pthread_mutex_timedlock, moment)
        return time.monotonic, lambda mutex, until: wait(mutex, time.CLOCK_MONOTONIC, until)

    def initialise(self, mutex: Any) -> None:
        """Write a new mutex, shared, robust, and which knows its owner, at an address."""
        attributes = ctypes.create_string_buffer(self.ATTRIBUTE_BYTES)
        library = self._library
        for function, *arguments in (
            (library.pthread_mutexattr_init,),
            (library.pthread_mutexattr_setpshared, self.PROCESS_SHARED),
            (library.pthread_mutexattr_setrobust, self.ROBUST),
            (library.pthread_mutexattr_settype, self.ERROR_CHECK),
        ):
            _check_pthread(function(attributes, *arguments))
        _check_pthread(library.pthread_mutex_init(mutex, attributes))
        library.pthread_mutexattr_destroy(attributes)


def _check_pthread(code: int) -> None:
    if code:
        raise OSError(code, f"the lock of a shared array: {os.strerror(code)}")


def _load_pthread() -> _Pthread | None:
    try:
        return _Pthread()
    except AttributeError:
        return None


_pthread = _load_pthread()
_SLICE = 0.05  # s; how long a waiting lock may keep a Python signal handler waiting


class _Me(threading.local):
    """
    Something that each thread has one of, and no later thread has too.

    Not threading.get_ident(), which a new thread may have from one that ended; nor the native one,
    which is seven times as slow.
    """

    def __init__(self) -> None:
        self.token = object()


_me = _Me()

# Locks held in this process. They must not be unmapped: the C library has chained them to the
# thread that holds them, and would follow the chain into pages that are gone.
_held: set[RobustLock] = set()


def _forget_held() -> None:
    """In a forked child: the locks that the parent holds are not the child's."""
    for lock in _held:
        lock._owner = None
    _held.clear()


os.register_at_fork(after_in_child=_forget_held)


class RobustLock:
    """
    A recursive lock that threads and processes share, and which outlives whoever holds it.

    It is used as the locks of multiprocessing are, and works as a context manager. If its holder
    dies, by SIGKILL or otherwise, the next one gets it, and is told so by a warning on the logger
    ``taylorism``: what the lock protects may be half written.

    Parameters
    ----------
    pages : _Mapping
        The shared memory that it lives in, from the first byte on.
    label : str
        What it protects, for messages.
    fresh : bool
        Whether to make it there; otherwise another process has done so.

    Notes
    -----
    A POSIX mutex that is shared, robust and checks errors. Its recursion is counted
    here, not there: only then can a mutex tell its owner "you have it already", which is the way to
    find out, after a signal handler has thrown an exception in the midst of `acquire`, whether the
    lock was taken.
    """

    __slots__ = ("__weakref__", "_count", "_label", "_mutex", "_owner", "_pages", "_pthread")

    def __init__(self, pages: _Mapping, label: str, *, fresh: bool) -> None:
        if _pthread is None:
            raise NotImplementedError("no robust locks on this system")
        self._pthread = _pthread
        self._pages = pages
        self._label = label
        self._mutex = ctypes.c_void_p(pages.address)
        self._owner: object = None  # the token of the thread that holds it, if one of this process
        self._count = 0
        if fresh:
            self._pthread.initialise(self._mutex)

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """
        Take the lock, or wait for it.

        Parameters
        ----------
        block : bool
            Whether to wait while another thread or process holds it.
        timeout : float, optional
            How long to wait at most, in seconds; for ever if None. Not looked at if `block` is
            false.

        Returns
        -------
        bool
            Whether the lock was taken. A thread that has it already gets it once more at once.
        """
        me = _me.token
        if self._owner is me:
            self._count += 1
            return True
        try:
            code = self._pthread.trylock(self._mutex)
            if code and not self._settle(code, timeout if block else 0.0):
                return False
            _held.add(self)
            self._owner, self._count = me, 1
            return True
        except BaseException:
            self._put_back(me)
            raise

    def release(self) -> None:
        """
        Give the lock back; it must be given back as often as it was taken.

        Raises
        ------
        AssertionError
            If the calling thread does not hold it.
        """
        if self._owner is not _me.token:
            raise AssertionError(f"release of the lock of {self._label} by a thread that does not hold it")
        if self._count > 1:
            self._count -= 1
            return
        try:
            _held.discard(self)
        finally:  # which nothing can interrupt before it has unlocked
            self._owner = None  # now: after the unlock it is the next holder's
            self._pthread.unlock(self._mutex)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "not held" if self._owner is None else "held"
        return f"<RobustLock of {self._label}, {state} by this process>"

    def __reduce__(self) -> Any:
        raise TypeError(f"the lock of {self._label} cannot be pickled: pass the shared array, which has it")

    def _settle(self, code: int, timeout: float | None) -> bool:
        """Return whether the mutex is ours in the end, after a first answer of the library."""
        if code == errno.EBUSY and (timeout is None or timeout > 0):
            code = self._wait(timeout)
        return self._judge(code)

    def _wait(self, timeout: float | None) -> int:
        """
        Wait for the mutex; return what the library answered last.

        In slices, because the signal handlers of Python run between C calls only: a Ctrl-C would
        wait as long.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            pause = min(_SLICE, max(end - time.monotonic(), 0.0))
            code = self._wait_once(pause)
            if code != errno.ETIMEDOUT or time.monotonic() >= end:
                return code

    def _wait_once(self, seconds: float) -> int:
        fraction, whole = math.modf(self._pthread.now() + seconds)
        return self._pthread.wait_until(self._mutex, _Timespec(int(whole), int(fraction * 1e9)))

    def _judge(self, code: int) -> bool:
        """Return whether the mutex is ours now, by what the library answered."""
        if code in (errno.EBUSY, errno.ETIMEDOUT):
            return False
        if code == errno.EOWNERDEAD:
            self._pthread.consistent(self._mutex)
            logger.warning(
                "The process (or thread) that held the lock of %s died with it. The lock was passed"
                " on, to process %d, but what it protects may be half written: check it, or compute"
                " it again.",
                self._label,
                os.getpid(),
            )
        elif code != errno.EDEADLK:
            # Which says that it is ours already: a second exception struck during _put_back.
            _check_pthread(code)
        return True

    def _put_back(self, me: object) -> None:
        """
        Release the mutex if an exception struck between taking it and noting so.

        Without this, a Ctrl-C while waiting would now and then leave a lock held by a thread that
        does not know.
        """
        if self._owner is me:
            self._owner = None
        if self._wait_once(0.0) == errno.ETIMEDOUT:  # it is another's
            return
        _held.discard(self)
        self._pthread.consistent(self._mutex)  # does nothing but after EOWNERDEAD
        self._pthread.unlock(self._mutex)


def _new_lock(pages: _Mapping, label: str) -> Any:
    """
    Return a lock for a new shared array.

    Where there are no robust ones (macOS) it is that of multiprocessing, with a name until it is
    dropped. Its context is ``spawn``, since one made in the context ``fork`` could not be passed to
    a spawned process; it works in forked ones as well.
    """
    if _pthread is not None:
        return RobustLock(pages, label, fresh=True)
    return multiprocessing.get_context("spawn").RLock()


# --- The memory -----------------------------------------------------------------------------------

_handles = threading.local()


@contextlib.contextmanager
def by_handle() -> Iterator[None]:
    """
    Within this context, this thread copies and pickles shared arrays as handles on the same memory.

    Outside of it, `copy.deepcopy` and `pickle` give the values, as with any ndarray. A pickled
    handle can be read by processes that have the memory already, because they were forked after the
    array was made (and by the one that made it): by main, the listener and the workers.

    Yields
    ------
    None
    """
    before = _in_handles()
    _handles.wanted = True
    try:
        yield
    finally:
        _handles.wanted = before


def _in_handles() -> bool:
    wanted: bool = getattr(_handles, "wanted", False)
    return wanted


def _spawning() -> bool:
    return context.get_spawning_popen() is not None


# All memory that this process knows, by key: a handle finds it here, and it is mapped once.
_known: weakref.WeakValueDictionary[int, _Memory | _Borrowed] = weakref.WeakValueDictionary()


def _new_key() -> int:
    """Return a number that no other memory has; not a text, whose hash differs by process."""
    return int.from_bytes(os.urandom(16), "big")


def _recall(key: int) -> _Memory | _Borrowed:
    """Return the memory that a pickled handle is for."""
    try:
        return _known[key]
    except KeyError:
        raise RuntimeError(
            "a shared array was sent to a process that does not have its memory: make the array"
            " before the Boss, pass it in sharedmemory_common_instructions, and keep a reference"
            " to it"
        ) from None


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
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        if limit != resource.RLIM_INFINITY and descriptor >= limit // 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("taylorism")
    else:  # macOS: an unlinked temporary file
        with tempfile.TemporaryFile(prefix="taylorism") as file:
            descriptor = os.dup(file.fileno())
    if descriptor > 2:
        return descriptor
    # A program with closed standard streams: children would take this for their stdin or stdout.
    higher = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return higher


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return what tells one file from another, or None for a descriptor that is closed."""
    try:
        status = os.fstat(descriptor)
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


class _Memory:
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
        self._data = _Mapping.of(descriptor, 0, max(nbytes, 1))  # 0 bytes cannot be mapped
        self._frozen: _Mapping | None = None
        self.lock = lock or self._find_lock(fresh=key is None)
        _known[self.key] = self

    @classmethod
    def new(cls, nbytes: int, label: str) -> _Memory:
        """Make new memory, full of zeros."""
        memory = cls(_open_file(_lock_offset(nbytes) + _PAGE), nbytes, label)
        memory._data.gather()
        return memory

    def _find_lock(self, *, fresh: bool) -> Any:
        pages = _Mapping.of(self.descriptor, _lock_offset(self.nbytes), _PAGE)
        return _new_lock(pages, self.label) if fresh else RobustLock(pages, self.label, fresh=False)

    def raw(self, readonly: bool) -> NDArray[np.uint8]:
        """Return the bytes, without a copy; a read-only mapping of them if asked."""
        if not readonly:
            return self._data.raw()
        if self._frozen is None:
            self._frozen = self._data.twin(self.descriptor)
            self._frozen.freeze()
        return self._frozen.raw()

    def freeze(self) -> None:
        """Take the right to write away for good, here and in processes forked from now on."""
        self._data.freeze()
        self._frozen = self._data

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> Any:
        if _in_handles():
            return _recall, (self.key,)
        if self._identity is None or _identity(self.descriptor) != self._identity:
            raise RuntimeError(
                f"{self.label} has no descriptor left to hand it to a spawned process (too many"
                " files are open, or something has closed it): raise `ulimit -n`, or use the start"
                " method 'fork'"
            )
        lock = None if isinstance(self.lock, RobustLock) else self.lock
        handed: Any = reduction.DupFd(self.descriptor)
        return _attach, (self.key, handed, self.nbytes, self.label, lock)


def _attach(key: int, handed: Any, nbytes: int, label: str, lock: Any) -> _Memory:
    """Map, in a spawned process, the memory whose descriptor it was given."""
    descriptor = handed.detach()
    known = _known.get(key)
    if isinstance(known, _Memory):
        if known.descriptor != descriptor:
            os.close(descriptor)
        return known
    os.set_inheritable(descriptor, False)
    return _Memory(descriptor, nbytes, label, key, lock)


class _Borrowed:
    """
    Shared memory that multiprocessing made: that of an `Array` or a `RawArray`.

    It stays multiprocessing's: it is inherited or sent as multiprocessing does it, and its pages,
    which hold other objects too, cannot be protected. A `RawArray` has no lock, so it is given one
    of ours.

    Parameters
    ----------
    source : multiprocessing.sharedctypes.SynchronizedArray or ctypes.Array
        The array.
    key : int, optional
        What other processes know it by; made up if there is none.
    own_lock : _Memory, optional
        Where the lock is, if multiprocessing did not make it.
    """

    __slots__ = ("__weakref__", "_bytes", "_own_lock", "_source", "key", "lock")

    def __init__(self, source: Any, key: int | None = None, own_lock: _Memory | None = None) -> None:
        self._source = source
        self.key = key or _new_key()
        synchronized = isinstance(source, sharedctypes.SynchronizedArray)
        if not synchronized and own_lock is None:
            own_lock = _Memory.new(0, "a multiprocessing.RawArray")
        self._own_lock = own_lock
        self.lock: Any = source.get_lock() if own_lock is None else own_lock.lock
        content = _ctypes_array(source)
        self._bytes: NDArray[np.uint8] = np.ndarray((ctypes.sizeof(content),), np.uint8, content)
        _known[self.key] = self
        _loans[id(content)] = self  # it keeps the source alive, so that the number stays its own

    def raw(self, readonly: bool) -> NDArray[np.uint8]:
        """Return the bytes, without a copy; as an array that refuses to be written if asked."""
        view: NDArray[np.uint8] = self._bytes.view()
        view.flags.writeable = not readonly
        return view

    def __hash__(self) -> int:
        return hash((_address(self._bytes), self._bytes.size))

    def __reduce__(self) -> Any:
        if _in_handles():
            return _recall, (self.key,)
        return _attach_borrowed, (self._source, self.key, self._own_lock)


_loans: weakref.WeakValueDictionary[int, _Borrowed] = weakref.WeakValueDictionary()


def _attach_borrowed(source: Any, key: int, own_lock: _Memory | None) -> _Borrowed:
    """Take, in a spawned process, what multiprocessing handed over."""
    known = _known.get(key)
    return known if isinstance(known, _Borrowed) else _Borrowed(source, key, own_lock)


def _loan(source: Any) -> _Borrowed:
    """Return the one loan of an array of multiprocessing, so that its handles have one lock."""
    return _loans.get(id(_ctypes_array(source))) or _Borrowed(source)


def _ctypes_array(source: Any) -> Any:
    """Return the ctypes array within an array of multiprocessing."""
    return source.get_obj() if isinstance(source, sharedctypes.SynchronizedArray) else source


def _is_multiprocessing(source: object) -> bool:
    # A ctypes array that multiprocessing made holds the block of shared memory that it was made in.
    # Any other is private memory, which a worker's writes would not leave.
    if isinstance(source, ctypes.Array):
        return hasattr(source, "_wrapper")
    return isinstance(source, sharedctypes.SynchronizedArray)


# --- Arrays over memory ---------------------------------------------------------------------------


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise UnsharableError(
            f"an array of dtype {dtype} cannot be shared: its elements are addresses of objects in"
            " this process. Convert it to a dtype of fixed size first, as in array.astype(float) or"
            " array.astype('U20')"
        )


def _ctypes_dtype(kind: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the dtype and the shape of a ctypes array type."""
    lengths = []
    while issubclass(kind, ctypes.Array):
        lengths.append(kind._length_)
        kind = kind._type_
    # The only one that numpy does not know.
    name = f"U{ctypes.sizeof(kind) // 4}" if kind is ctypes.c_wchar else kind
    return np.dtype(name), tuple(lengths)


def _strides(array: NDArray[Any], itemsize: int) -> tuple[int, ...]:
    """Return the strides (bytes) of a packed array whose axes are ordered as this one's."""
    packed = np.empty_like(array, dtype=np.int8, subok=False)
    return tuple(itemsize * stride for stride in packed.strides)


@dataclass(frozen=True)
class _MaskLayout:
    """Where the mask of a masked array is in its memory (bytes), and what goes with it."""

    offset: int
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    fill_value: Any
    hard: bool


@dataclass(frozen=True)
class _Layout:
    """How an array lies over its memory, of which the data are the beginning."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    mask: _MaskLayout | None = None

    @classmethod
    def packing(cls, array: NDArray[Any]) -> _Layout:
        """Return the layout for a copy of an array: no gaps, its order of axes, its mask behind."""
        mask = None
        if isinstance(array, np.ma.MaskedArray):
            dtype = np.ma.make_mask_descr(array.dtype)
            offset = -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
            # The attribute: to read the property `fill_value` makes a default an explicit value.
            fill_value = getattr(array, "_fill_value", None)
            mask = _MaskLayout(offset, dtype, _strides(array, dtype.itemsize), fill_value, array.hardmask)
        return cls(array.shape, array.dtype, _strides(array, array.dtype.itemsize), mask)

    @property
    def nbytes(self) -> int:
        """Size of a packed array, in bytes."""
        size = math.prod(self.shape)
        if self.mask is None:
            return size * self.dtype.itemsize
        return self.mask.offset + size * self.mask.dtype.itemsize

    def lay(self, raw: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the array over these bytes."""
        data: NDArray[Any] = np.ndarray(self.shape, self.dtype, raw, 0, self.strides)
        if self.mask is None:
            return data
        mask: NDArray[Any] = np.ndarray(self.shape, self.mask.dtype, raw, self.mask.offset, self.mask.strides)
        return np.ma.MaskedArray(
            data, mask=mask, copy=False, fill_value=self.mask.fill_value, hard_mask=self.mask.hard
        )


def _mask_of(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return the very object that is a masked array's mask; None of an ndarray."""
    return getattr(array, "_mask", None)


def _plain(value: Any) -> Any:
    """Return the ndarray of a shared array, anything else as it is."""
    return value._array if isinstance(value, SharedNumpyArray) else value


def _plain_deep(value: Any) -> Any:
    """Return a value in which the shared arrays, in lists, tuples and dicts too, are ndarrays."""
    if isinstance(value, (list, tuple)):
        items = [_plain_deep(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: _plain_deep(item) for key, item in value.items()}
    return _plain(value)


def _given_back(result: Any, out: Any) -> Any:
    """Return a result in which what was written to a shared array in ``out=`` is that array."""
    if isinstance(result, tuple):
        return tuple(_given_back(item, out) for item in result)
    for target in out if isinstance(out, tuple) else (out,):
        if isinstance(target, SharedNumpyArray):
            target._keep_mask()
            if target._array is result:
                return target
    return result


def _unary(operation: Callable[[Any], Any]) -> Callable[..., Any]:
    """Make a method of an operation on an array."""

    def method(self: SharedNumpyArray) -> Any:
        return operation(self._array)

    return method


def _binary(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make a method of an operation on an array and something else."""

    def method(self: SharedNumpyArray, other: Any) -> Any:
        return operation(self._array, _plain(other))

    return method


def _reflected(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make a method of an operation on something else and an array."""

    def method(self: SharedNumpyArray, other: Any) -> Any:
        return operation(_plain(other), self._array)

    return method


def _in_place(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make a method of an operation that writes an array."""

    def method(self: SharedNumpyArray, other: Any) -> Any:
        result = operation(self._array, _plain(other))
        self._keep_mask()
        # It is another only if the other operand took over, as it may with an ndarray.
        return self if result is self._array else result

    return method


class SharedNumpyArray:
    """
    An array that the main process and all workers read and write.

    It is made in the main process, before the Boss, and passed in
    ``sharedmemory_common_instructions``. It is used as the `numpy.ndarray` (or the masked array)
    that it is laid over: indexing, attributes, operators, functions of numpy; whatever has a new
    array as its result gives an ordinary one.

    Parameters
    ----------
    array : numpy.ndarray, numpy.ma.MaskedArray, multiprocessing.Array or SharedNumpyArray
        An ndarray is copied into shared memory, once, with its order of axes; subclasses of ndarray
        become ndarrays. Of a masked array the mask is shared as well; fill value and hardness are
        kept. An `Array` or `RawArray` of multiprocessing is not copied: it is the same memory, in
        its own dtype, under its own lock. Another shared array is not copied either: it is another
        handle on the same memory.
    readonly : bool, optional
        Whether this handle can only be read. For memory of taylorism's own the processor enforces
        it: a write, by compiled code too, is a fault. Arrays of multiprocessing are only flagged as
        read-only. A read-only ndarray makes a writable shared array, unless this is given. A
        read-only handle on a writable one, ``SharedNumpyArray(shared, readonly=True)``, lets main
        write what workers can only read.

    Raises
    ------
    UnsharableError
        A `TypeError`, if the elements are Python objects or strings of variable width.
    TypeError
        If `array` is none of these.
    MemoryError
        If the memory cannot be had.

    Notes
    -----
    ``==`` and ``!=`` with another shared array compare the elements; with anything else they are
    False and True, because footprints compares attributes with anything. Write
    ``shared[...] == array`` to compare the elements with those of an ndarray.

    As in 1.1 ``isinstance(shared, numpy.ndarray)`` is true (and MaskedArray, of a masked one), though
    it is none. What looks at the type itself (compiled code, ``numpy.ma.array``) is given
    ``shared[...]``.

    A copy (`copy.deepcopy`) and a pickle are those of the ndarray: independent values, so that a
    worker may return the array as its report, and so that nobody who copies before a change finds
    his copy changed. It is the same memory only in processes forked after it was made, or to which
    it is passed when multiprocessing spawns them; and within `by_handle`.

    Examples
    --------
    >>> import numpy as np
    >>> shared = SharedNumpyArray(np.zeros((2, 3)))
    >>> shared[0] = 1
    >>> shared += 1
    >>> float(shared.sum())
    9.0
    >>> with shared.get_lock():
    ...     shared[1, 1] += 1
    """

    __module__ = "taylorism.util"
    __slots__ = ("__weakref__", "_array", "_memory", "_shared_mask")

    _array: NDArray[Any]
    _memory: Any
    _shared_mask: NDArray[Any] | None

    def __init__(self, array: Any, *, readonly: bool = False) -> None:
        if isinstance(array, SharedNumpyArray):  # first, since it claims to be an ndarray too
            self._share(array, readonly)
        elif _is_multiprocessing(array):
            self._borrow(array, readonly)
        elif isinstance(array, np.ndarray):
            self._copy_in(array, readonly)
        else:
            raise TypeError(
                "a SharedNumpyArray is made of a numpy.ndarray, a numpy.ma.MaskedArray or a"
                f" multiprocessing.Array, not of {type(array).__name__}: convert it by"
                " numpy.asarray()"
            )

    # How it is made, copied and sent

    def _copy_in(self, array: NDArray[Any], readonly: bool) -> None:
        _check_dtype(array.dtype)
        layout = _Layout.packing(array)
        memory = _Memory.new(layout.nbytes, f"the shared array {layout.dtype} {layout.shape}")
        self._lay_over(memory, layout, readonly=False)
        np.asarray(self._array)[...] = np.asarray(array)
        if self._shared_mask is not None:
            self._shared_mask[...] = np.ma.getmaskarray(array)
        if readonly:
            memory.freeze()
            self._lay_over(memory, layout, readonly)

    def _borrow(self, array: Any, readonly: bool) -> None:
        content = _ctypes_array(array)
        dtype, shape = _ctypes_dtype(type(content))
        _check_dtype(dtype)
        like: NDArray[Any] = np.ndarray(shape, dtype, content)
        self._lay_over(_loan(array), _Layout.packing(like), readonly)

    def _share(self, other: SharedNumpyArray, readonly: bool) -> None:
        self._lay_over(other._memory, other._layout(), readonly or not other._array.flags.writeable)

    def _lay_over(self, memory: Any, layout: _Layout, readonly: bool) -> None:
        array = layout.lay(memory.raw(readonly))
        object.__setattr__(self, "_memory", memory)
        object.__setattr__(self, "_array", array)
        object.__setattr__(self, "_shared_mask", _mask_of(array))

    def _layout(self) -> _Layout:
        """Return how the array lies now; its shape, for one, can be set after it was made."""
        array, mask = self._array, self._shared_mask
        layout = _Layout(array.shape, array.dtype, array.strides)
        if mask is None:
            return layout
        packed = _Layout.packing(array).mask
        assert packed is not None
        offset = _address(mask) - _address(np.asarray(array))
        return replace(layout, mask=replace(packed, offset=offset, strides=mask.strides))

    def _keep_mask(self) -> None:
        """
        Take the shared mask back if numpy has put one of its own in its place.

        It does so in ``**=``, and in ufuncs with ``out=``; then other processes would not see the
        new mask.
        """
        shared, mask = self._shared_mask, _mask_of(self._array)
        if shared is mask or shared is None or mask is None:
            return
        if np.may_share_memory(shared, mask):  # seen otherwise: the dtype was set
            object.__setattr__(self, "_shared_mask", mask)
            return
        shared[...] = mask
        self._array._mask = shared  # type: ignore[attr-defined]

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not (_in_handles() or _spawning()):
            return self._array.__reduce_ex__(protocol)
        return _rebuild, (type(self), self._memory, self._layout(), not self._array.flags.writeable)

    def __copy__(self) -> Any:
        return self if _in_handles() else copy.copy(self._array)

    def __deepcopy__(self, memo: Any) -> Any:
        return self if _in_handles() else copy.deepcopy(self._array, memo)

    # The lock

    def get_lock(self) -> Any:
        """
        Return the lock of the memory, which works as a context manager.

        Returns
        -------
        RobustLock or multiprocessing.synchronize.RLock
            That of multiprocessing for an array of multiprocessing, and where there are no robust
            ones.
        """
        return self._memory.lock

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """
        Take the lock: see `RobustLock.acquire`.

        Parameters
        ----------
        block : bool
            Whether to wait for it.
        timeout : float, optional
            How long at most, in seconds.

        Returns
        -------
        bool
            Whether it was taken.
        """
        taken: bool = self._memory.lock.acquire(block, timeout)
        return taken

    def release(self) -> None:
        """
        Give the lock back: see `RobustLock.release`.

        Raises
        ------
        AssertionError
            If the calling thread does not hold it.
        """
        self._memory.lock.release()

    # Attributes: the ndarray's

    # As in 1.1, where code that asks isinstance(x, numpy.ndarray), or MaskedArray, hears yes.
    __class__ = property(operator.attrgetter("_array.__class__"))

    def __getattr__(self, name: str) -> Any:
        if name in SharedNumpyArray.__slots__:  # before __init__: never ask for ever
            raise AttributeError(name)
        if name in _LESSER_DOORS and not self._is_simple():
            raise AttributeError(name)
        if name in _PRIVATE_MASK and self._shared_mask is not None:
            return lambda: self
        return getattr(self._array, name)

    def _is_simple(self) -> bool:
        """
        Return whether ``__array_struct__`` tells the whole of it.

        It loses the mask, the unit of times, the gaps of structures, and metadata.
        """
        dtype = self._array.dtype
        known = dtype.isbuiltin == 1 and dtype.kind in "biufcSU"
        return known and self._shared_mask is None and dtype.metadata is None

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._array, name, value)
        self._keep_mask()

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._array), "acquire", "get_lock", "release"})

    # Elements

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._array[key] = value

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._array)

    def __contains__(self, value: Any) -> bool:
        return _plain(value) in self._array

    # Comparison

    def __hash__(self) -> int:
        return hash(self._memory)

    def __eq__(self, other: object) -> Any:
        return self._array == other._array if isinstance(other, SharedNumpyArray) else False

    def __ne__(self, other: object) -> Any:
        return self._array != other._array if isinstance(other, SharedNumpyArray) else True

    # numpy's own doors

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if dtype is None and not copy:
            return self._array
        return np.array(self._array, dtype, copy=copy, subok=True)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        operation = getattr(ufunc, method)
        if not options:
            return operation(*map(_plain, inputs))
        plain = {name: _plain_deep(value) for name, value in options.items()}
        return _given_back(operation(*map(_plain, inputs), **plain), options.get("out", ()))

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        result = function(*_plain_deep(inputs), **_plain_deep(options))
        return _given_back(result, options.get("out", ()))

    # Operators

    __lt__, __le__ = _binary(operator.lt), _binary(operator.le)
    __gt__, __ge__ = _binary(operator.gt), _binary(operator.ge)

    __neg__, __pos__ = _unary(operator.neg), _unary(operator.pos)
    __abs__, __invert__ = _unary(operator.abs), _unary(operator.invert)
    __bool__, __index__ = _unary(bool), _unary(operator.index)
    __int__, __float__, __complex__ = _unary(int), _unary(float), _unary(complex)

    __add__, __radd__ = _binary(operator.add), _reflected(operator.add)
    __sub__, __rsub__ = _binary(operator.sub), _reflected(operator.sub)
    __mul__, __rmul__ = _binary(operator.mul), _reflected(operator.mul)
    __matmul__, __rmatmul__ = _binary(operator.matmul), _reflected(operator.matmul)
    __truediv__, __rtruediv__ = _binary(operator.truediv), _reflected(operator.truediv)
    __floordiv__, __rfloordiv__ = _binary(operator.floordiv), _reflected(operator.floordiv)
    __mod__, __rmod__ = _binary(operator.mod), _reflected(operator.mod)
    __divmod__, __rdivmod__ = _binary(divmod), _reflected(divmod)
    __pow__, __rpow__ = _binary(operator.pow), _reflected(operator.pow)
    __lshift__, __rlshift__ = _binary(operator.lshift), _reflected(operator.lshift)
    __rshift__, __rrshift__ = _binary(operator.rshift), _reflected(operator.rshift)
    __and__, __rand__ = _binary(operator.and_), _reflected(operator.and_)
    __or__, __ror__ = _binary(operator.or_), _reflected(operator.or_)
    __xor__, __rxor__ = _binary(operator.xor), _reflected(operator.xor)

    __iadd__, __isub__ = _in_place(operator.iadd), _in_place(operator.isub)
    __imul__, __imatmul__ = _in_place(operator.imul), _in_place(operator.imatmul)
    __itruediv__, __ifloordiv__ = _in_place(operator.itruediv), _in_place(operator.ifloordiv)
    __imod__, __ipow__ = _in_place(operator.imod), _in_place(operator.ipow)
    __ilshift__, __irshift__ = _in_place(operator.ilshift), _in_place(operator.irshift)
    __iand__, __ior__, __ixor__ = (
        _in_place(operator.iand),
        _in_place(operator.ior),
        _in_place(operator.ixor),
    )

    # Text

    def __repr__(self) -> str:
        return f"SharedNumpyArray({self._array!r})"

    def __str__(self) -> str:
        return str(self._array)

    def __format__(self, specification: str) -> str:
        return format(self._array, specification)


# numpy prefers these to __array__ if it finds them.
_LESSER_DOORS = ("__array_interface__", "__array_struct__")
# They would put a private mask, or none, in the place of the shared one.
_PRIVATE_MASK = ("shrink_mask", "unshare_mask")


class _Shortcut(property):
    """
    An attribute that is found before `__getattr__` is asked, which takes five times as long.

    Called on the class, ``SharedNumpyArray.sum(shared)``, it is the method, as numpy.ma has it.
    """

    def __init__(self, name: str) -> None:
        property.__init__(self, operator.attrgetter(f"_array.{name}"))
        self.name = name

    def __call__(self, array: Any, *arguments: Any, **options: Any) -> Any:
        return getattr(array, self.name)(*arguments, **options)


for _name in {*dir(np.ndarray), *dir(np.ma.MaskedArray)}.difference(_PRIVATE_MASK):
    if not _name.startswith("_"):
        setattr(SharedNumpyArray, _name, _Shortcut(_name))


def _rebuild(kind: type[SharedNumpyArray], memory: Any, layout: _Layout, readonly: bool) -> SharedNumpyArray:
    """Make a shared array over memory that this process has, or was handed."""
    shared = kind.__new__(kind)
    shared._lay_over(memory, layout, readonly)
    return shared
