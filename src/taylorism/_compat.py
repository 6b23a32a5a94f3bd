"""Leaf, any process: the only module that knows `bronx`, and private sides of `multiprocessing` and `concurrent`.

`bronx` is not a dependency of ours: it comes with footprints. Two things of it are promised to users:
the identity of `SignalInterruptError`, which callers catch, and that its logging helpers act on our logger.

A worker is a bare `os.fork` (see `_process`), yet the code that runs in it expects what
`multiprocessing` does for its own children; the functions below do that part of
`multiprocessing.process.BaseProcess._bootstrap`, and are the only users of private names of the
standard library. They are tested on each Python version that is supported.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable

from bronx.fancies import loggers as _bronx_loggers

try:
    from _pickle import PicklingError as PicklingError  # `pickle` itself would take a tenth of our import
except ImportError:  # an interpreter without the one in C
    from pickle import PicklingError as PicklingError

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

    from bronx.system.interrupt import SignalInterruptError as SignalInterruptError

    socketpair: Any

__all__ = [
    "PicklingError",
    "SignalInterruptError",
    "announce_logger",
    "become_multiprocessing_child",
    "cancel_future",
    "drive_waiters",
    "environment",
    "forget_console",
    "forget_multiprocessing_child",
    "handled_signals",
    "leave_multiprocessing_child",
    "handlers",
    "is_default",
    "log_handlers",
    "set_environment",
    "set_handler",
    "set_mask",
    "socketpair",
]

#: seconds between two looks at an event that may also be set by somebody whom we do not know
_TICK = 0.05

#: `signal.pthread_sigmask` without the function of Python around it, as whose body begins a handler may raise
set_mask: Any = _signal.pthread_sigmask


def __getattr__(name: str) -> Any:
    """Import the exception when it is asked for: `signal` comes with it. And `socketpair`.

    `socket.socketpair` takes the descriptors out of two sockets and makes others: a handler may raise in between.
    """
    if name == "SignalInterruptError":
        from bronx.system.interrupt import SignalInterruptError

        return globals().setdefault(name, SignalInterruptError)
    if name == "socketpair":
        from _socket import socketpair

        return globals().setdefault(name, socketpair)
    raise AttributeError(name)


def announce_logger(logger: logging.Logger) -> None:
    """Let bronx's `setGlobalLevel` and its friends act on `logger`.

    bronx's own `getLogger` would do it too, but it may also set the level of the root logger, and
    that one is the user's.
    """
    _bronx_loggers.roots.add(logger.name)
    _bronx_loggers.lognames.add(logger.name)


def forget_console() -> None:
    """Take from the root logger what the import of footprints has given it, if it had no handler: its console.

    For a process that was never meant to log to its standard error: the messages of everybody else at INFO would
    come out there.
    """
    root = logging.getLogger()
    if _bronx_loggers.default_console in root.handlers:
        root.removeHandler(_bronx_loggers.default_console)
        if root.level == logging.INFO:  # set together with the handler
            root.setLevel(logging.WARNING)


# `signal.signal` and `signal.getsignal` look for an enum in what is a function nearly always; in a process that was
# just forked, that search costs more than all the rest. Hence the module below them.


def set_handler(signum: int, handler: Callable[..., object] | None = None) -> None:
    """Set the handler of `signum`; None for the default."""
    _signal.signal(signum, _signal.SIG_DFL if handler is None else handler)


def is_default(signum: int) -> bool:
    """Whether the system does what it always does at `signum`; asked without a system call."""
    return bool(_signal.getsignal(signum) is _signal.SIG_DFL)


def handlers(signums: Iterable[int]) -> list[Any]:
    """Return the handlers of some signals."""
    return list(map(_signal.getsignal, signums))


def handled_signals() -> list[int]:
    """Return the signals for which a Python function is called."""
    return [signum for signum in range(1, _signal.NSIG) if callable(_signal.getsignal(signum))]


def log_handlers() -> list[logging.Handler]:
    """Return all the handlers of `logging` that exist, without walking through all the loggers."""
    return [handler for each in logging._handlerList if (handler := each()) is not None]  # type: ignore[attr-defined]


def environment() -> dict[Any, Any]:
    """Return the environment as it is encoded: to compare it takes a fifteenth of a copy of `os.environ`.

    That of `os.environb`, for in the place of `os.environ` a program may have put a dict.
    """
    data: dict[Any, Any] = os.environb._data  # type: ignore[attr-defined]
    return data


def set_environment(wanted: dict[Any, Any]) -> None:
    """Change the environment to `wanted`, encoded as `environment` is."""
    for name in environment().keys() - wanted.keys():
        del os.environb[name]
    for name, value in wanted.items():
        if environment().get(name) != value:
            os.environb[name] = value


def become_multiprocessing_child() -> None:
    """Do in a forked child what `multiprocessing` does for its own: forget the parent's affairs."""
    process: Any = sys.modules.get("multiprocessing.process")
    util: Any = sys.modules.get("multiprocessing.util")
    if process is not None:
        process._children = set()
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()


def leave_multiprocessing_child() -> None:
    """End what the task started and left: pools, daemonic children, its threads, its own Bosses.

    Non-daemonic children and threads are waited for, as under `multiprocessing`; the listener
    bounds that wait (`_crew.LINGER`).
    """
    util: Any = sys.modules.get("multiprocessing.util")
    process: Any = sys.modules.get("multiprocessing.process")
    if util is not None and (util._finalizer_registry or process._children):
        util._exit_function()
    if threading.active_count() > 1:
        threading._shutdown()  # type: ignore[attr-defined]


def forget_multiprocessing_child(process: object) -> None:
    """Keep `multiprocessing` from joining `process` at exit, for ever and before our own care."""
    module = sys.modules.get("multiprocessing.process")
    getattr(module, "_children", set()).discard(process)


# `concurrent.futures.wait` and `as_completed` hang a waiter into each future, whose event somebody is to set.


class _Waiters(list):  # type: ignore[type-arg]
    """The waiters of a future that is moved by who waits."""

    def __init__(self, wait_until: Callable[[Callable[[], bool], float], bool]) -> None:
        super().__init__()
        self._wait_until = wait_until

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, _DrivenEvent):
            waiter.event = _DrivenEvent(waiter.event)
        if self._wait_until not in waiter.event.drivers:
            waiter.event.drivers.append(self._wait_until)
        super().append(waiter)


class _DrivenEvent:
    """An event for which one waits by doing what leads to it; others may set it as well."""

    def __init__(self, event: threading.Event) -> None:
        self.drivers: list[Callable[[Callable[[], bool], float], bool]] = []
        self.set, self.clear, self.is_set = event.set, event.clear, event.is_set
        self._event = event

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, `timeout` seconds at most; return whether it is."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            tick = min(left, _TICK)
            came = [drive(self.is_set, tick) for drive in self.drivers]
            if self.is_set() or left == 0:
                return self.is_set()
            if all(came):  # their work is over: it is set by somebody else
                self._event.wait(tick)


def drive_waiters(future: Any, wait_until: Callable[[Callable[[], bool], float], bool]) -> None:
    """Have who waits for `future` by `concurrent.futures` call `wait_until`, with a condition and seconds."""
    future._waiters = _Waiters(wait_until)


def cancel_future(future: Any) -> None:
    """Cancel a future whose call is not made any more, and tell who waits for it; harmless when repeated.

    A callback may come here again before the waiters are told, and that is allowed only once.
    """
    from concurrent.futures import Future

    Future.cancel(future)
    with future._condition:
        if future._state == "CANCELLED":
            future.set_running_or_notify_cancel()
