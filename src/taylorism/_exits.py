"""Leaf, any process: what has to be done before a process that made a Boss leaves, in whatever way it leaves.

The main program leaves by the end of its interpreter (`atexit`), a child of `multiprocessing` by that
package's finalizers (it runs no `atexit` before Python 3.13), a worker of ours by `run`.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

__all__ = ["before_leaving", "run"]

_pid = 0
_callbacks: list[Callable[[], None]] = []


def before_leaving(callback: Callable[[], None]) -> None:
    """Have `callback` called once before this process leaves. Not inherited by its forks."""
    global _pid
    if _pid != os.getpid():
        _callbacks.clear()
        atexit.register(run)
        _tell_multiprocessing()
        _pid = os.getpid()  # last: if a handler raises before, all of this is done again, which does no harm
    if callback not in _callbacks:
        _callbacks.append(callback)


def _tell_multiprocessing() -> None:
    # With an exit priority, it runs before multiprocessing joins the children that are left.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, run, exitpriority=100)


def run() -> None:
    """Call what was registered in this process; nothing in a fork of it."""
    while _pid == os.getpid() and _callbacks:
        _callbacks.pop()()
