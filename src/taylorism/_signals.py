"""Vocabulary, any process: signals become events in the listener and exceptions in a worker.

In main nothing is installed, ever: the handlers there are the user's. The listener and its workers share one
handler, `_dispatch`, which asks the *role* of the process what to do. So a newborn worker has its handlers from
its first instruction on, without a system call; a signal that comes before it has taken its role is
kept for it. (Blocking the signals around each fork and installing other handlers in each worker was the
first version: it cost a tenth of the rate of empty workers, in pages that the child had to copy.)
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from taylorism import _compat
from taylorism._compat import SignalInterruptError
from taylorism._descriptors import above_stdio
from taylorism._libc import libc

__all__ = ["Inbox", "Interruption", "children_inherit", "die_of", "postponed", "while_blocked"]

#: what ends the listener, in an orderly way; plain numbers, as an enum takes a function of Python for its hash
ENDING = tuple(map(int, (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)))
#: what interrupts a task. 1.1 also caught SIGFPE, SIGABRT and SIGTRAP: a Python handler cannot serve
#: these (the faulting instruction is run again, for ever), so they kill, and the death is reported.
INTERRUPTING = (*ENDING, *map(int, (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)))

_SIGCHLD = int(signal.SIGCHLD)

#: what this process does about signals; None in a process that is not ours
_role: Any = None
#: signals that came to a fork of ours before it had a role
_early: list[int] = []


def while_blocked(act: Callable[[], object]) -> None:
    """Hold back the interrupting signals in this thread while it forks, until the child has its handlers.

    No context manager: a handler of the user's may raise as its `__exit__` begins, which is a function, and Ctrl-C
    would be blocked for good. For the same reason the calls are those of the C module.
    """
    before = _compat.set_mask(signal.SIG_BLOCK, ())
    try:
        _compat.set_mask(signal.SIG_BLOCK, INTERRUPTING)  # runs the handlers of what had come: they may raise
        act()
    finally:
        try:  # Python 3.10 runs handlers also where an exception arrives, but not before a `try` begins
            _compat.set_mask(signal.SIG_SETMASK, before)
        finally:
            pass


def children_inherit() -> bool:
    """Whether what this process forks needs no blocking: it is the listener, whose handler serves both."""
    return isinstance(_role, Inbox) and _role.pid == os.getpid()


def _dispatch(signum: int, frame: FrameType | None) -> None:
    role = _role
    if role is not None and role.pid == os.getpid():
        role.take(signum)
    else:
        _early.append(signum)


def _install(role: Any, caught: tuple[int, ...]) -> None:
    """Take the role in a fork of main: its handlers are reset, what it ignores stays ignored (``nohup``)."""
    global _role
    _role = role
    handled = zip(caught, _compat.handlers(caught), strict=True)
    ignored = {number for number, handler in handled if handler == signal.SIG_IGN}
    for number in _compat.handled_signals():
        _compat.set_handler(number)
    for number in {*caught} - (ignored - {int(signal.SIGTERM), _SIGCHLD}):
        _compat.set_handler(number, _dispatch)
    os.register_at_fork(after_in_child=_leave_to_default)
    # Also where the thread that made the Boss had them blocked.
    _compat.set_mask(signal.SIG_UNBLOCK, {*caught, _SIGCHLD})


def _leave_to_default() -> None:
    """In what a task forks: give the signals back their default; they are blocked until then (`_guards`).

    A `multiprocessing.Pool` in the task would otherwise lose its SIGTERM in a moment when nothing can be
    raised, now and then, and be waited for without end.
    """
    global _role
    if not isinstance(_role, Interruption):
        return  # a worker, just born: it takes over the handlers of the listener
    _role = None
    for signum in INTERRUPTING:
        if signal.getsignal(signum) is _dispatch:
            default = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
            signal.signal(signum, default)


#: room for a set of signals of the C library: 128 bytes on Linux, 4 on macOS
_SignalSet = ctypes.c_ulong * 32


def _guards() -> dict[str, Callable[[], object]]:
    """Return what blocks the interrupting signals while a task forks, for `os.register_at_fork`.

    As it begins in a fork, the interpreter forgets the signals of which a handler has taken note. So one would be
    lost that comes between the fork and `_leave_to_default`: a fifth of a millisecond and more, which is when the
    pools of short tasks end their processes.

    These are functions of C, with their arguments. In one of Python a handler might run and raise, and what is
    raised there the interpreter swallows. (Two threads that fork at a time get one another's mask back; it is the
    same, unless the task has changed that of one.)
    """
    held_back, before = _SignalSet(), _SignalSet()
    libc.sigemptyset(held_back)
    for signum in INTERRUPTING:
        libc.sigaddset(held_back, signum)
    hold = partial(libc.pthread_sigmask, int(signal.SIG_BLOCK), held_back, before)
    release = partial(libc.pthread_sigmask, int(signal.SIG_SETMASK), before, None)
    return {"before": hold, "after_in_parent": release, "after_in_child": release}


#: made with this module, in main: in a fork it would copy some fifty pages
_GUARDS = _guards()


class Inbox:
    """The role of the listener: signals are events for its loop.

    Attributes
    ----------
    fd : int
        Becomes readable at every signal.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._came: set[int] = set()
        self._child_ended = True
        self.fd, self._writer = map(above_stdio, os.pipe())
        for fd in (self.fd, self._writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        _install(self, (*INTERRUPTING, _SIGCHLD))

    def take(self, signum: int) -> None:
        """Note a signal; called by the handler."""
        self._came.add(signum)

    def drain(self, readable: bool) -> set[int]:
        """Return the signals that came since the last time, SIGCHLD apart.

        Parameters
        ----------
        readable : bool
            Whether `fd` is. A signal may also have come since that was found out.
        """
        if readable:
            os.read(self.fd, 4096)  # what may be left wakes the loop once more
        came, self._came = self._came, set()
        self._child_ended = self._child_ended or _SIGCHLD in came
        return came - {_SIGCHLD}

    @property
    def any(self) -> bool:
        """Whether a signal has come since the last time."""
        return bool(self._came)

    @property
    def quiet(self) -> bool:
        """Whether nothing has come that ends us."""
        return not self._came.intersection(ENDING)

    def child_ended(self) -> bool:
        """Whether a child has ended since the last time."""
        ended, self._child_ended = self._child_ended, False
        return ended

    def forget(self) -> None:
        """Close our descriptors in a child."""
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._writer)


class Interruption:
    """The role of a worker: the first signal raises in its task, the others are noted.

    The task may clean up in its ``finally`` blocks; how long, the stop ladder of the listener says.

    Attributes
    ----------
    signum : int or None
        The signal that came first.
    raised : BaseException or None
        What it raised in the task.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.signum: int | None = None
        self.raised: BaseException | None = None
        self._armed = False
        self._guarded = False

    def begin(self) -> None:
        """Take the role; raises what a signal raises that has come already.

        Raises
        ------
        KeyboardInterrupt, SignalInterruptError
            From now on, wherever the task is, at the first interrupting signal.
        """
        global _role
        if self._armed and _role is self:
            return  # of several Workers in one process, each is hired in the role in which it works
        self._armed = True
        if _role is None:
            _install(self, INTERRUPTING)  # a Worker that was set to work without a Boss
        else:
            # Not inherited by the libraries of the task: each child that ends would cut their sleeps short.
            if not _compat.is_default(_SIGCHLD):
                _compat.set_handler(_SIGCHLD)
            _role = self
        if not self._guarded:
            self._guarded = True
            os.register_at_fork(**_GUARDS)  # of those for a child, the last comes last: after `_leave_to_default`
        if _early:
            self.take(_early[0])

    def disarm(self) -> None:
        """Let no more signal raise: the task is over, and its outcome is on its way."""
        self._armed = False

    def take(self, signum: int) -> None:
        """Raise what stands for the signal, the first time; called by the handler."""
        first, self.signum = self.signum is None, self.signum or signum
        if first and self._armed:
            self._raise(signum)

    def _raise(self, signum: int) -> None:
        if signum == signal.SIGINT:
            self.raised = KeyboardInterrupt()
        else:
            self.raised = SignalInterruptError(f"Signal {signum:d} was caught.")
        raise self.raised

    def postpone(self) -> None:
        """Let no signal raise before `resume`."""
        self._armed = False

    def resume(self) -> None:
        """Raise what a signal would have raised since `postpone`."""
        self._armed = True
        if self.signum is not None and self.raised is None:
            self._raise(self.signum)


@contextmanager
def postponed() -> Iterator[None]:
    """In a task: let signals raise at the end of this block, not within; elsewhere, do nothing.

    Blocking them in the system would not do: a program that is started meanwhile would never get them.
    """
    role = _role
    if not isinstance(role, Interruption) or role.pid != os.getpid():
        yield
        return
    role.postpone()
    try:
        yield
    finally:
        role.resume()


def die_of(signum: int) -> None:
    """End this process by `signum`, so that its parent sees what ended it."""
    signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
    os.kill(os.getpid(), signum)
