"""Leaf, any process: the only module that knows `bronx`, and the private sides of `multiprocessing`.

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
    "environment",
    "forget_multiprocessing_child",
    "handled_signals",
    "leave_multiprocessing_child",
    "handlers",
    "log_handlers",
    "set_environment",
    "set_handler",
    "set_mask",
    "socketpair",
]

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


# `signal.signal` and `signal.getsignal` look for an enum in what is a function nearly always; in a process that was
# just forked, that search costs more than all the rest. Hence the module below them.


def set_handler(signum: int, handler: Callable[..., object] | None = None) -> None:
    """Set the handler of `signum`; None for the default."""
    _signal.signal(signum, _signal.SIG_DFL if handler is None else handler)


def handlers(signums: Iterable[int]) -> list[Any]:
    """Return the handlers of some signals."""
    return [_signal.getsignal(signum) for signum in signums]


def handled_signals() -> list[int]:
    """Return the signals for which a Python function is called."""
    return [signum for signum in range(1, _signal.NSIG) if callable(_signal.getsignal(signum))]


def log_handlers() -> list[logging.Handler]:
    """Return all the handlers of `logging` that exist, without walking through all the loggers."""
    return [handler for each in logging._handlerList if (handler := each()) is not None]  # type: ignore[attr-defined]


def environment() -> dict[Any, Any]:
    """Return the environment as it is encoded: to compare it takes a fifteenth of a copy of `os.environ`."""
    data: dict[Any, Any] = os.environ._data  # type: ignore[attr-defined]
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
