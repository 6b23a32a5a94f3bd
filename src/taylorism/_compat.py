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
import sys
import threading
from typing import Any

from bronx.fancies import loggers as _bronx_loggers
from bronx.system.interrupt import SignalInterruptError as SignalInterruptError

__all__ = [
    "SignalInterruptError",
    "announce_logger",
    "become_multiprocessing_child",
    "default_handler",
    "forget_multiprocessing_child",
    "leave_multiprocessing_child",
]



def announce_logger(logger: logging.Logger) -> None:
    """Let bronx's `setGlobalLevel` and its friends act on `logger`.

    bronx's own `getLogger` would do it too, but it may also set the level of the root logger, and
    that one is the user's.
    """
    _bronx_loggers.roots.add(logger.name)
    _bronx_loggers.lognames.add(logger.name)


def default_handler(signum: int) -> None:
    """Give `signum` its default; without the search of `signal.signal` for an enum, since each worker does it."""
    _signal.signal(signum, _signal.SIG_DFL)


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
