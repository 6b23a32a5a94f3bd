"""Vocabulary, any process: signals become events in the listener and exceptions in a worker.

In main nothing is installed, ever: the handlers there are the user's. `blocked` holds the signals back
around a fork until the child has handlers of its own, so that none is lost or lands in the wrong
process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from taylorism._channel import above_stdio
from taylorism._compat import SignalInterruptError

__all__ = [
    "Inbox",
    "Interruption",
    "blocked",
    "die_of",
    "unblock",
]

#: what ends the listener, in an orderly way
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: what interrupts a task. 1.1 also caught SIGFPE, SIGABRT and SIGTRAP: a Python handler cannot serve
#: these (the faulting instruction is run again, for ever), so they kill, and the death is reported.
INTERRUPTING = (*ENDING, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def blocked() -> Iterator[None]:
    """Hold back the interrupting signals in this thread; they come when it is left."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Let the interrupting signals in, also where the thread that made the Boss had blocked them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*INTERRUPTING, signal.SIGCHLD})


class Inbox:
    """The signals of the listener, as events for its loop.

    Handlers of main that came with the fork are reset: they are not meant for this process. Signals that
    main ignores stay ignored (``nohup``), but for those that the listener lives by.

    Attributes
    ----------
    fd : int
        Becomes readable at every signal.
    """

    def __init__(self) -> None:
        self._came: set[int] = set()
        self._child_ended = True
        _reset_inherited()
        self.fd, self._writer = map(above_stdio, os.pipe())
        for fd in (self.fd, self._writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum in (*ENDING, signal.SIGINT, signal.SIGCHLD):
            if signum in (signal.SIGTERM, signal.SIGCHLD) or not _ignored(signum):
                signal.signal(signum, self._note)
        unblock()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._came.add(signum)

    def take(self) -> set[int]:
        """Return the signals that came since the last time, SIGCHLD apart."""
        with suppress(BlockingIOError):
            while os.read(self.fd, 4096):
                pass
        came, self._came = self._came, set()
        self._child_ended = self._child_ended or signal.SIGCHLD in came
        return came - {signal.SIGCHLD}

    def child_ended(self) -> bool:
        """Whether a child has ended since the last time."""
        ended, self._child_ended = self._child_ended, False
        return ended

    def forget(self) -> None:
        """Close our descriptors in a child."""
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._writer)


def _reset_inherited() -> None:
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)) and signum != signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)


def _ignored(signum: int) -> bool:
    return signal.getsignal(signum) is signal.SIG_IGN


class Interruption:
    """What the signals of a worker do to its task: the first one raises in it, the others are noted.

    The task may clean up in its ``finally`` blocks; how long, the stop ladder of the listener says.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._armed = True
        self._pid = os.getpid()

    def install(self) -> None:
        """Catch the interrupting signals from now on, in this process only."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for signum in INTERRUPTING:
            if signum == signal.SIGTERM or not _ignored(signum):
                signal.signal(signum, self._interrupt)
        # A `multiprocessing.Pool` in the task would otherwise inherit our handlers, lose its SIGTERM
        # in the one moment when nothing can be raised, and be waited for without end.
        os.register_at_fork(after_in_child=self._leave_to_default)
        unblock()

    def disarm(self) -> None:
        """Let no more signal raise: the task is over, and its outcome is on its way."""
        self._armed = False

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        first, self.signum = self.signum is None, self.signum or signum
        if not (first and self._armed):
            return
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SignalInterruptError(f"Signal {signum:d} was caught.")

    def _leave_to_default(self) -> None:
        if os.getpid() == self._pid:
            return
        for signum in INTERRUPTING:
            if signal.getsignal(signum) == self._interrupt:
                default = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
                signal.signal(signum, default)


def die_of(signum: int) -> None:
    """End this process by `signum`, so that its parent sees what ended it."""
    signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
    os.kill(os.getpid(), signum)
