"""Leaf, any process: a lock that lives in shared pages, and outlives whoever holds it.

The control plane of taylorism never takes one.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from taylorism import _handles
from taylorism._pages import Pages, libc

__all__ = ["RobustLock", "new_lock"]

logger = logging.getLogger("taylorism")


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


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
            wait = self._taking(libc.pthread_mutex_clocklock, ctypes.c_int, moment)
        except AttributeError:
            # glibc before 2.30, and musl: the wall clock, which may jump. The slices are short.
            return time.time, self._taking(libc.pthread_mutex_timedlock, moment)
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
        lock._owner, lock._took_over = None, False
    _held.clear()


os.register_at_fork(after_in_child=_forget_held)


def _holds_one() -> bool:
    me = _me.token
    return any(lock._owner is me for lock in list(_held))


_handles.holds_a_lock = _holds_one


class RobustLock:
    """
    A recursive lock that threads and processes share, and which outlives whoever holds it.

    It is used as the locks of multiprocessing are, and works as a context manager. If its holder
    dies, by SIGKILL or otherwise, the next one gets it, and is told so by a warning on the logger
    ``taylorism`` and by `took_over`: what the lock protects may be half written.

    Parameters
    ----------
    pages : Pages
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

    __slots__ = ("__weakref__", "_count", "_label", "_mutex", "_owner", "_pages", "_pthread", "_took_over")

    def __init__(self, pages: Pages, label: str, *, fresh: bool) -> None:
        if _pthread is None:
            raise NotImplementedError("no robust locks on this system")
        self._pthread = _pthread
        self._pages = pages
        self._label = label
        self._mutex = ctypes.c_void_p(pages.address)
        self._owner: object = None  # the token of the thread that holds it, if one of this process
        self._count = 0
        self._took_over = False  # written by the holder alone
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
        finally:
            # Which nothing can interrupt before it has unlocked; on Python 3.10 only since it begins with a `try`.
            try:
                self._took_over = False
                self._owner = None  # now: after the unlock it is the next holder's
                self._pthread.unlock(self._mutex)
            finally:
                pass

    @property
    def took_over(self) -> bool:
        """Whether who holds the lock now, a thread of this process, has it from a holder that died."""
        return self._took_over

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
            self._took_over = True
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
        self._took_over = False
        self._pthread.consistent(self._mutex)  # does nothing but after EOWNERDEAD
        self._pthread.unlock(self._mutex)


def new_lock(pages: Pages, label: str) -> Any:
    """
    Return a lock for a new shared array.

    Where there are no robust ones (macOS) it is that of multiprocessing, with a name until it is
    dropped. Its context is ``spawn``, since one made in the context ``fork`` could not be passed to
    a spawned process; it works in forked ones as well.
    """
    if _pthread is not None:
        return RobustLock(pages, label, fresh=True)
    return multiprocessing.get_context("spawn").RLock()
