"""Transport, main and listener: one child process, seen from its parent: start, death, exit status in words.

Two ways of starting, one face (`Process`), which is also the seam for places other than this machine:

`ForkedProcess`
    A bare fork. `multiprocessing.Process` was tried first: it makes two more pipes and a finalizer for
    each, and its start and end cost more than all that we do besides. What code in the child
    expects of `multiprocessing` is done by `_compat`.
`ContextProcess`
    A process of a `multiprocessing` context, for a listener with ``start_method='spawn'`` or ``'forkserver'``.

A fork of a process with threads is not safe in itself: only the thread that forked goes on in the child, and
locks stay as they were. The listener therefore does three things before anything else: it renews the standard
streams and those of `logging` (`_streams`), it imports nothing that was not imported before the fork, and it
takes no lock that main's threads can hold.
"""

from __future__ import annotations

import operator
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from itertools import starmap
from typing import Any, NoReturn, Protocol

from taylorism import _compat, _signals
from taylorism._descriptors import keep_above_stdio

__all__ = ["ContextProcess", "ForkedProcess", "Process", "in_words", "watch"]

#: seconds between two looks at a process where there is no descriptor to wait on
_TICK = 0.005
#: seconds that a child has to end when it is let go of
_MOMENT = 0.1
_PID = operator.itemgetter(0)


class Process(Protocol):
    """What the rest of the package asks of a child; a part of the face of `multiprocessing.Process`."""

    @property
    def pid(self) -> int | None:
        """Its process number, None before the start."""

    @property
    def exitcode(self) -> int | None:
        """Exit status, the negative number of the signal that killed it, None while it lives."""

    def start(self) -> None:
        """Start it."""

    def is_alive(self) -> bool:
        """Whether it has started and not ended."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, `timeout` seconds at most."""

    def terminate(self) -> None:
        """Send it SIGTERM."""

    def kill(self) -> None:
        """Send it SIGKILL."""


def watch(pid: int, noted: list[int] | None = None) -> int | None:
    """Return a descriptor that becomes readable when `pid` ends; None where the system has none (macOS).

    Parameters
    ----------
    noted : list of int, optional
        The descriptor is added here in the same instant: a signal handler may raise before it is returned.
    """
    opened: list[int] = [] if noted is None else noted
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        opened.extend(map(os.pidfd_open, (pid,)))  # one call into C: see `_descriptors`
    except OSError as error:
        if error.errno is None:
            raise  # of a signal handler of the user's
        return None  # no such call in this kernel (before 5.3) or sandbox, or it has been reaped
    return keep_above_stdio(opened)


def in_words(exitcode: int | None) -> str:
    """Say what an exit status means, and what it often comes from."""
    if exitcode is None:
        return "its exit status is unknown"
    if exitcode >= 0:
        return f"exited with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"killed by {name}{_HINTS.get(-exitcode, '')}"


_HINTS: dict[int, str] = {
    signal.SIGKILL: ": out of memory?",
    signal.SIGSEGV: ": a fault in compiled code?",
    signal.SIGBUS: ": a shared file or /dev/shm that was full or cut?",
    signal.SIGABRT: ": an abort() in compiled code?",
    signal.SIGFPE: ": a division by zero in compiled code?",
    signal.SIGXCPU: ": a cpu time limit?",
    signal.SIGTERM: ": by the batch system, or by hand?",
}


class ForkedProcess:
    """A fork of this process that calls `run` and never returns from it.

    Holds no resource of the system before `start`.

    Parameters
    ----------
    run : callable
        Called in the child. It should leave by `os._exit`; if it returns or raises, the child exits with
        0 or 1, at once.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self._run: Callable[[], object] | None = run
        self._parent = os.getpid()
        self._exitcode: int | None = None
        self._waited: list[tuple[int, int]] = []
        self._forked: list[int] = []
        self._kept = False

    @property
    def pid(self) -> int | None:
        """Its process number, None before the start."""
        return self._forked[-1] if self._forked else None

    def start(self) -> None:
        """Fork.

        Raises
        ------
        OSError
            The system refuses another process.
        """
        if _signals.children_inherit():
            self._fork()
        else:
            _signals.while_blocked(self._fork)
        self._run = None

    def _fork(self) -> None:
        # One call into C: a signal that another thread has taken may raise in this one as soon as the fork
        # returns, and a child whose number nobody knows could not even be ended.
        self._forked.extend(starmap(os.fork, ((),)))
        if self._forked[-1] == 0:
            self._be_the_child()

    def _be_the_child(self) -> NoReturn:
        status = 1
        try:
            self._forked = [os.getpid()]
            _compat.become_multiprocessing_child()
            if self._run is not None:
                self._run()
            status = 0
        finally:
            os._exit(status)

    @property
    def exitcode(self) -> int | None:
        """Exit status, the negative number of the signal that killed it, None while it lives."""
        self._reap(os.WNOHANG)
        return self._exitcode

    @property
    def noted(self) -> bool:
        """Whether its end has been noted, without asking the system."""
        return self._exitcode is not None

    def note_end(self, status: int) -> None:
        """Take the wait status from a parent that reaped all its children in one go."""
        self._exitcode = os.waitstatus_to_exitcode(status)

    def is_alive(self) -> bool:
        """Whether it has started and not ended."""
        return self.pid is not None and self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, `timeout` seconds at most; nothing to wait for before the start."""
        if self.pid is None or self._exitcode is not None or os.getpid() != self._parent:
            return
        if timeout is None:
            self._reap(0)
        else:
            self._join_within(timeout)

    def _join_within(self, timeout: float) -> None:
        noted: list[int] = []
        # Made beforehand, so that to close is one call into C: a handler may raise as a function of ours begins.
        close = partial(any, map(os.close, noted))
        deadline = time.monotonic() + timeout
        try:
            fd = watch(self.pid or 0, noted)
            while self.exitcode is None and (left := deadline - time.monotonic()) > 0:
                _pause(fd, left)
        finally:
            try:  # Python 3.10 runs handlers also where an exception arrives, but not before a `try` begins
                close()
            finally:
                pass

    def _reap(self, options: int) -> None:
        if self._exitcode is not None or self.pid is None or os.getpid() != self._parent:
            return
        try:
            # One call into C, so that no signal handler can raise between the end and its note: a status is
            # given out only once. `filter` leaves out the answer that says "not yet".
            self._waited.extend(filter(_PID, map(os.waitpid, (self.pid,), (options,))))
        except ChildProcessError:
            self._look_elsewhere()
        if self._waited:
            self.note_end(self._waited[0][1])

    def _look_elsewhere(self) -> None:
        """Find the status that somebody else was given: another thread, or one who waits for any child."""
        deadline = time.monotonic() + _MOMENT
        while not self._waited and time.monotonic() < deadline:
            time.sleep(_TICK)
        if not self._waited and self._exitcode is None:
            self._exitcode = 0  # main ignores SIGCHLD, or has reaped it: it is gone, and we cannot know how

    def keep(self) -> None:
        """Have it live on when what was started by it is let go of: it has others to run."""
        self._kept = True

    def dispose(self) -> None:
        """Let go of it: one that has not ended within a moment is ended."""
        if self.pid is None or self._exitcode is not None or self._kept:
            return
        for end in (self.terminate, self.kill):
            self.join(_MOMENT)
            if self.is_alive():
                end()
        self.join(_MOMENT)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, signum: signal.Signals) -> None:
        # Not reaped, hence the pid is still its own.
        if self.is_alive() and self.pid is not None and os.getpid() == self._parent:
            os.kill(self.pid, signum)

    def __repr__(self) -> str:
        state = "not started" if self.pid is None else f"pid {self.pid}"
        return f"<{type(self).__name__} {state}, exit status {self._exitcode}>"


def _pause(fd: int | None, seconds: float) -> None:
    if fd is None:
        time.sleep(min(_TICK, seconds))
    else:
        poller = select.poll()  # not `select`, which knows no descriptor above 1023
        poller.register(fd, select.POLLIN)
        poller.poll(seconds * 1000)


class ContextProcess:
    """A process of a `multiprocessing` context that is ours to end, not multiprocessing's to join.

    Parameters
    ----------
    method : {'spawn', 'forkserver'}
        Start method.
    run : callable
        Importable function, called in the child with `argument`.
    argument : object
        Pickled while the child is started.
    """

    def __init__(self, method: str, run: Callable[[Any], object], argument: object) -> None:
        import multiprocessing

        context: Any = multiprocessing.get_context(method)
        self._process = context.Process(target=run, args=(argument,))

    def start(self) -> None:
        """Start it."""
        self._process.start()
        _compat.forget_multiprocessing_child(self._process)

    @property
    def pid(self) -> int | None:
        """Its process number, None before the start."""
        pid: int | None = self._process.pid
        return pid

    @property
    def exitcode(self) -> int | None:
        """Exit status, the negative number of the signal that killed it, None while it lives."""
        code: int | None = self._process.exitcode
        return code

    def is_alive(self) -> bool:
        """Whether it has started and not ended."""
        return self.pid is not None and bool(self._process.is_alive())

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, `timeout` seconds at most."""
        if self.pid is not None:
            self._process.join(timeout)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        if self.pid is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Send it SIGKILL."""
        if self.pid is not None:
            self._process.kill()
